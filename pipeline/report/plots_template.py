"""The frame of DVC's page of plots with all its scripts inside: DVC's own loads them from the network."""

from vl_convert import javascript_bundle

FRAME = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>Plots</title>
<style>body { font-family: sans-serif; } img { max-width: 84em; }</style>
<script>
BUNDLE
</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""
"""DVC fills in what stands in braces."""


def plots_template() -> str:
    """Return the frame with Vega, Vega-Lite and vega-embed, for ``plots.html_template`` of DVC's configuration."""
    bundle = javascript_bundle()  # type: ignore[call-arg]  # its stub does not know the default
    return FRAME.replace("BUNDLE", bundle.replace("</script", r"<\/script"))
