"""Writes templates_extra.json: what Jinja2, set up as transformers sets it up, prints for snippets of
every feature and for whole templates in the manner of the families that ship them.

    pip install transformers jinja2
    python make/templates_extra.py > templates_extra.json

`contexts` and `families` (templates) by name, and `cases` of name, template (or the name of a family),
context (a name), and either expected or error.
"""
import datetime
import json
import sys

import transformers.utils.chat_template_utils as chat_templates
from jinja2 import Environment

from templates_extra_families import CHATS, FAMILIES
from templates_extra_snippets import CONTEXT, snippets


class Noon(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 7, 4, 12, 0, 0)


chat_templates.datetime = Noon


def compile_template(source):
    compiled = chat_templates._compile_jinja_template(source)
    assert isinstance(compiled.environment, Environment)
    return compiled


def case(entry, template, contexts):
    try:
        context = json.loads(json.dumps(contexts[entry["context"]]))
        entry["expected"] = compile_template(template).render(**context)
    except Exception as why:  # whatever Jinja2 or Python raises is a refusal
        entry["error"] = f"{type(why).__name__}: {why}"
    return entry


def main():
    contexts = {"snippet": CONTEXT, **CHATS}
    cases = []
    for i, template in enumerate(snippets()):
        entry = {"name": f"snippet/{i}", "template": template, "context": "snippet"}
        cases.append(case(entry, template, contexts))
    for family, template in FAMILIES.items():
        for chat in CHATS:
            entry = {"name": f"{family}/{chat}", "family": family, "context": chat}
            cases.append(case(entry, template, contexts))
    whole = {"contexts": contexts, "families": FAMILIES, "cases": cases}
    json.dump(whole, sys.stdout, ensure_ascii=True, indent=0)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
