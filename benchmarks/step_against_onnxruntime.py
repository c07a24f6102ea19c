"""One streaming step of an LSTM against the same step in ONNX Runtime, float32, one thread.

pip install onnx onnxruntime && python benchmarks/step_against_onnxruntime.py

The peer is refused if its outputs disagree.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from timing import paired

import fastrnn

ROWS = [(8, 16), (32, 32), (64, 128), (128, 256), (256, 512)]


def onnx_lstm(layer: fastrnn.LSTM) -> onnxruntime.InferenceSession:
    """The layer as an ONNX model of one node; ONNX orders gates i, o, f, c, we i, f, g, o."""
    I, H = layer.input_size, layer.hidden_size
    weights = layer.state_dict()

    def reordered(name: str) -> np.ndarray:
        i, f, g, o = np.split(weights[name], 4)
        return np.concatenate([i, o, f, g])

    tensors = {
        "W": reordered("weight_ih_l0")[None],
        "R": reordered("weight_hh_l0")[None],
        "B": np.concatenate([reordered("bias_ih_l0"), reordered("bias_hh_l0")])[None],
    }
    float32 = TensorProto.FLOAT
    node = helper.make_node(
        "LSTM", ["x", "W", "R", "B", "", "h", "c"], ["y", "h_n", "c_n"], hidden_size=H
    )
    graph = helper.make_graph(
        [node],
        "lstm",
        [
            helper.make_tensor_value_info("x", float32, [1, 1, I]),
            helper.make_tensor_value_info("h", float32, [1, 1, H]),
            helper.make_tensor_value_info("c", float32, [1, 1, H]),
        ],
        [
            helper.make_tensor_value_info("h_n", float32, [1, 1, H]),
            helper.make_tensor_value_info("c_n", float32, [1, 1, H]),
        ],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def main() -> None:
    fastrnn.show_config()
    print(f"onnxruntime:  {onnxruntime.__version__}, onnx {onnx.__version__}, one thread\n")
    print(f"{'I,H':>8} {'fastrnn us':>11} {'ONNX Runtime us':>16} ours/theirs")
    for I, H in ROWS:
        layer = fastrnn.LSTM(I, H, seed=0)
        session = onnx_lstm(layer)
        stream, out = layer.stream(), np.empty(H, np.float32)
        x = np.random.default_rng(0).normal(size=I).astype(np.float32)
        feed = {"x": x[None, None], "h": np.zeros((1, 1, H), "f"), "c": np.zeros((1, 1, H), "f")}

        def ours(stream=stream, x=x, out=out):
            stream.step(x, out=out)

        def theirs(session=session, feed=feed):
            feed["h"], feed["c"] = session.run(("h_n", "c_n"), feed)

        for _ in range(3):
            ours()
            theirs()
        np.testing.assert_allclose(out, feed["h"].ravel(), rtol=1e-4, atol=1e-5)
        mine, peer = paired([ours, theirs], 15, 0.05)
        print(f"{f'{I},{H}':>8} {mine * 1e6:11.2f} {peer * 1e6:16.2f} {mine / peer:11.3f}")


if __name__ == "__main__":
    main()
