"""The report's section on a training: how accurate each level of sparsity is."""

from collections.abc import Mapping, Sequence

from onnx_shift.report.charts import Axis, Line, linear_axis, lines
from onnx_shift.report.markup import Column, folded_table
from onnx_shift.views.tables import show_count, show_share

Level = Mapping[str, float]


def training_section(levels: Sequence[Level]) -> str:
    """Return the section for the levels that `onnx-shift train` listed in levels.csv."""
    points = [(level["ratio"], 100 * level["accuracy"]) for level in levels]
    best = max(levels, key=lambda level: level["accuracy"])
    sparsest = levels[-1]
    lead = (
        f"{show_share(levels[0]['accuracy'])} dense; best {show_share(best['accuracy'])} at ratio {best['ratio']:.3g}; "
        f"{show_share(sparsest['accuracy'])} at ratio {sparsest['ratio']:.3g}. On the test images, as trained."
    )
    title = "Accuracy in per cent against the ratio: weights of the dense network over those left"
    ticks = [(ratio, f"{ratio:.3g}") for ratio, _ in points]
    x = Axis("ratio", points[0][0] / 1.25, points[-1][0] * 1.25, ticks, logarithmic=True)
    y = linear_axis("", [accuracy for _, accuracy in points], "{:g}".format)
    moments = [(level["ratio"], f"ratio {level['ratio']:.3g}: {show_share(level['accuracy'])}") for level in levels]
    columns = [
        Column("level", "level", lambda level: level["level"], "{:.0f}".format),
        Column("ratio", "ratio", lambda level: level["ratio"], "{:.3g}".format),
        Column("weights", "kept", lambda level: level["kept"], show_count),
        Column("accuracy", "accuracy", lambda level: level["accuracy"], show_share),
    ]
    return (
        '<section aria-labelledby="training"><h2 id="training">Training</h2>'
        f'<p class="lead">{lead}</p>'
        f"<h3>{title}</h3>"
        f"<figure>{lines(title, x, y, [Line(points, 'policy')], moments)}</figure>"
        f"{folded_table('levels', 'Levels', columns, levels)}</section>"
    )
