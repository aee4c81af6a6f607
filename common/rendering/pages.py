"""Loads the templates of the HTML pages and plots."""

import jinja2


def find_template(name: str) -> jinja2.Template:
    """Returns a template of `common/rendering/templates`."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("common.rendering"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(name)
