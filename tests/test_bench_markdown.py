"""Tables in Markdown, and pages whose text outside of the marks stays."""

import pytest

from tvm_sparsewino.bench.markdown import between, markdown_table


def test_a_table_has_a_head_a_rule_and_rows():
    text = markdown_table(["layer", "ms"], [["a", "1"], ["b", ""]])
    assert text == "| layer | ms |\n|---|---|\n| a | 1 |\n| b |  |\n"


def test_what_is_between_the_marks_is_replaced():
    page = "before\n<a>\nold\n</a>\nafter\n"
    assert between(page, "<a>\n", "</a>\n", "new\n") == "before\n<a>\nnew\n</a>\nafter\n"


@pytest.mark.parametrize("page", ["<a> text", "</a> text <a>", "<a> 1 <a> 2 </a>", "<a> </a> </a>"])
def test_a_page_without_its_marks_is_not_written(page):
    with pytest.raises(ValueError, match="'<a>' once and '</a>' once, after it"):
        between(page, "<a>", "</a>", "new")
