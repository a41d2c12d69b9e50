from onnx_shift.onnx_pruner.graph.names import free_name


def test_a_name_is_taken_once() -> None:
    taken = {"x", "x_1"}
    assert [free_name(stem, taken) for stem in ("x", "x", "y")] == ["x_2", "x_3", "y"]
    assert taken == {"x", "x_1", "x_2", "x_3", "y"}
