"""What `auto` means on a machine, and the warning where bfloat16 is slow."""

import logging

import pytest
import torch

from wm.models.precision import dtype_of, fast_precision


def processor(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    dtype_of.cache_clear()


@pytest.mark.parametrize("feature", ["amx_bf16", "avx512_bf16"])
def test_a_processor_with_bfloat16_instructions_is_fast_at_it(monkeypatch, caplog, feature):
    processor(monkeypatch, **{feature: True})
    assert fast_precision() == "bfloat16"
    assert dtype_of("bfloat16") == torch.bfloat16
    assert not caplog.records


def test_another_processor_warns_once_if_a_run_uses_bfloat16(monkeypatch, caplog):
    processor(monkeypatch, avx512_f=True, amx_bf16=False)
    assert fast_precision() == "float32"
    assert dtype_of("float32") == torch.float32
    with caplog.at_level(logging.WARNING):
        assert [dtype_of("bfloat16") for _ in range(3)] == [torch.bfloat16] * 3
    assert len(caplog.records) == 1
    assert "--controller.precision float32" in caplog.text
    dtype_of.cache_clear()
