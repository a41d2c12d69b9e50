import onnx

from onnx_shift.onnx_pruner.graph.inner import captured_by, subgraphs


def test_bodies_are_found_wherever_a_graph_may_be_held() -> None:
    graph = onnx.GraphProto()
    for kind, domain in (
        ("If", ""),
        ("Loop", ""),
        ("Scan", "ai.onnx"),
        ("SequenceMap", ""),
        ("Relu", "mine"),
        ("Own", ""),
    ):
        assert len(list(subgraphs(onnx.helper.make_node(kind, [], [], domain=domain, body=graph)))) == 1
    assert not list(subgraphs(onnx.helper.make_node("Relu", [], [])))


def test_what_bodies_read_of_the_graph_around_them_is_told() -> None:
    innermost = onnx.helper.make_graph([onnx.helper.make_node("Add", ["a", "b"], ["c"])], "innermost", [], [])
    inner = onnx.helper.make_graph([onnx.helper.make_node("If", ["d"], ["e"], then_branch=innermost)], "inner", [], [])
    node = onnx.helper.make_node("If", ["f"], ["g"], then_branch=inner)
    assert set(captured_by(node)) == {"a", "b", "d"}
