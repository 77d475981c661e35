"""Play inside an agent's dream, in a browser: one HTML file with the weights and the program in it.

model     what the page computes with: the decoder, M, C and first frames as one block of bytes
controls  which keys and buttons stand for which actions in a game
wasm      the matrix product as a WebAssembly module, assembled here
page      the HTML file, from assets/
still     a picture of the page for reports, made without a browser

assets/ holds the page as plain files. In the worker: matrices.js (heap and matrix products), noise.js (seeded noise),
decoder.js (V), dream.js (M and C), worker.js (messages). On the page: controls.js (keys, buttons and touch), panels.js
(charts, bars and the numbers of z), main.js (the loop).
"""
