//! Markdown (CommonMark, with tables and strike-through) as HTML.

use pulldown_cmark::{Options, Parser, html};

/// The HTML of `text`, without a page around it.
pub(super) fn to_html(text: &str) -> String {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
    let mut out = String::with_capacity(text.len() * 3 / 2);
    html::push_html(&mut out, Parser::new_ext(text, options));
    out
}

/// A page around `content`, for those who gave no layout.
pub(super) fn page(content: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html>\n<head><meta charset=\"utf-8\"></head>\n<body>\n{content}</body>\n</html>\n"
    )
}
