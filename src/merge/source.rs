//! The body of a template, from its own text or from the parts of a complete message, with the files that it names.

use super::eml::{self, Carried};
use super::engine::{Engine, Mode};
use super::error::TemplateError;
use super::files::{FILE_FIELDS, Files, missing};
use super::front::Front;
use super::parts::{Body, Page};

/// A file's text.
pub(super) fn text_of<'a>(files: &'a Files, file: &str) -> Result<&'a str, TemplateError> {
    files.text(file).ok_or_else(|| {
        TemplateError::new(file, 0, "it is not UTF-8").hint("convert it: iconv -t UTF-8")
    })
}

/// The body of a complete message.
pub(super) fn complete(engine: &mut Engine, files: &Files) -> Result<Body, TemplateError> {
    let file = &files.main;
    let bytes = files.get(file).map(|bytes| &bytes[..]).unwrap_or_default();
    let parts =
        eml::parts(bytes).ok_or_else(|| TemplateError::new(file, 1, "its parts cannot be read"))?;
    let mut body = Body::default();
    if let Some(text) = &parts.text {
        body.text = Some(engine.add(Mode::Text, "text part", (file, 1), text)?);
    }
    if let Some(html) = &parts.html {
        let source = engine.add(Mode::Html, "HTML part", (file, 1), html)?;
        body.page = Some(Page {
            source,
            is_markdown: false,
            layout: None,
        });
    }
    parts.carried.iter().for_each(|carried| body.carry(carried));
    Ok(body)
}

/// The body of a template with a header and a text.
pub(super) fn written(
    engine: &mut Engine,
    files: &Files,
    front: &Front<'_>,
) -> Result<Body, TemplateError> {
    let file = files.main.as_str();
    let source = eml::unix(front.body);
    let place = (file, front.body_line);
    let extension = file.rsplit('.').next().unwrap_or_default().to_lowercase();
    let mut body = Body::default();
    let layout = match front.all("Layout").next() {
        None => None,
        Some(field) => {
            let text = text_of(files, &field.value)?;
            Some(engine.add(Mode::Html, "layout", (&field.value, 1), &eml::unix(text))?)
        }
    };
    let is_markdown = matches!(extension.as_str(), "md" | "markdown");
    if is_markdown || matches!(extension.as_str(), "html" | "htm") {
        let mode = if is_markdown {
            Mode::Markdown
        } else {
            Mode::Html
        };
        body.page = Some(Page {
            source: engine.add(mode, "page", place, &source)?,
            is_markdown,
            layout,
        });
    }
    match (front.all("Text").next(), front.all("Html").next()) {
        (Some(field), _) => {
            let text = eml::unix(text_of(files, &field.value)?);
            body.text = Some(engine.add(Mode::Text, "text", (&field.value, 1), &text)?);
        }
        (None, _) if body.page.is_none() || is_markdown => {
            body.text = Some(engine.add(Mode::Text, "text", place, &source)?);
        }
        _ => {}
    }
    if let Some(field) = front.all("Html").next() {
        let text = eml::unix(text_of(files, &field.value)?);
        body.page = Some(Page {
            source: engine.add(Mode::Html, "page", (&field.value, 1), &text)?,
            is_markdown: false,
            layout: None,
        });
    }
    Ok(body)
}

/// Makes sure that the files that a template names are there.
///
/// # Errors
/// The first that is not, and the line that names it.
pub(super) fn check_files(files: &Files, front: &Front<'_>) -> Result<(), TemplateError> {
    let absent = |name: &str| format!("{name}: there is no such file beside the template");
    for field in &front.fields {
        let names_file = FILE_FIELDS
            .iter()
            .any(|known| field.name.eq_ignore_ascii_case(known));
        if names_file && files.get(&field.value).is_none() {
            let what = absent(&field.value);
            return Err(TemplateError::new(&files.main, field.line, what));
        }
    }
    let carried = ["Inline", "Attach"];
    let carried = carried.iter().flat_map(|name| front.all(name));
    let carried: Vec<&str> = carried.map(|field| field.value.as_str()).collect();
    match missing(files, &carried) {
        Some((file, line, name)) => Err(TemplateError::new(&file, line, absent(&name))),
        None => Ok(()),
    }
}

/// The files that the header names.
pub(super) fn carry(body: &mut Body, files: &Files, front: &Front<'_>) {
    for (field_name, is_inline) in [("Inline", true), ("Attach", false)] {
        for field in front.all(field_name) {
            let Some(bytes) = files.get(&field.value) else {
                continue;
            };
            let name = field.value.rsplit('/').next().unwrap_or_default();
            body.carry(&Carried {
                name: name.to_owned(),
                content_type: content_type(name).to_owned(),
                content_id: is_inline.then(|| name.to_owned()),
                bytes: bytes.to_vec(),
            });
        }
    }
}

/// The media type that a file's name speaks for.
fn content_type(name: &str) -> &'static str {
    let extension = name.rsplit('.').next().unwrap_or_default().to_lowercase();
    match extension.as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "pdf" => "application/pdf",
        "ics" => "text/calendar",
        "csv" => "text/csv",
        "txt" => "text/plain",
        "html" | "htm" => "text/html",
        "zip" => "application/zip",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        _ => "application/octet-stream",
    }
}
