"""A run and everything it stores.

stages        the table of stages
run           an open run, its frozen config and its stages
manifest      the result of a complete stage, with hashes
storage       a local folder or an S3 bucket behind one interface; put-if-absent
lease         one job at a time per run
checkpoints   tensors in files, without pickle
shards        Parquet files with one row group per episode; datasets: the shards that a manifest names
status, cost  progress and cost of each stage
disk_space    the disk space that each stage needs; disk_check: the check before it starts
"""
