//! Rows as files and databases give them.

use super::*;

fn csv(bytes: &[u8], delimiter: Option<u8>, encoding: Option<&str>) -> Vec<String> {
    let input = Box::new(io::Cursor::new(bytes.to_vec()));
    match csv_rows::CsvRows::open("t.csv".into(), input, delimiter, encoding) {
        Ok(mut rows) => all(&mut rows),
        Err(error) => vec![shown(error)],
    }
}

fn json(bytes: &[u8]) -> Vec<String> {
    let input = Box::new(io::Cursor::new(bytes.to_vec()));
    all(&mut json_rows::JsonRows::new("t.jsonl".into(), input))
}

fn shown(error: DataError) -> String {
    match error {
        DataError::Row(bad) => format!("! {bad}"),
        DataError::Source { what, .. } => format!("!! {what}"),
    }
}

fn all(rows: &mut dyn Rows) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        match rows.next_row() {
            Ok(None) => return found,
            Ok(Some(Placed { row, line })) => {
                let pairs = row.columns.names().iter().zip(&row.values);
                let pairs: Vec<String> = pairs
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                found.push(format!("{}@{line} {}", row.number, pairs.join(" ")));
            }
            Err(error @ DataError::Row(_)) => found.push(shown(error)),
            Err(error) => {
                found.push(shown(error));
                return found;
            }
        }
    }
}

#[test]
fn delimiters_marks_and_quotes_are_understood() {
    let want = [
        "1@2 email=\"a@b\" name=\"x; y\"",
        "2@3 email=\"c@d\" name=\"two\\nlines\"",
    ];
    for (delimiter, text) in [
        (",", "email,name\na@b,x; y\n\nc@d,\"two\nlines\"\n"),
        (
            ";",
            "\u{feff}email;name\r\na@b;\"x; y\"\r\n\r\nc@d;\"two\nlines\"",
        ),
        ("\t", "email\tname\na@b\tx; y\n\nc@d\t\"two\nlines\"\n"),
        ("|", "email|name\na@b|x; y\n\nc@d|\"two\nlines\"\n"),
    ] {
        assert_eq!(csv(text.as_bytes(), None, None), want, "{delimiter:?}");
    }
    assert_eq!(
        csv(b"a b,c\n1,2\n", Some(b' '), None).len(),
        1,
        "the delimiter that was asked for"
    );
}

#[test]
fn encodings_are_decoded_and_what_is_no_utf_8_is_named_by_row_and_column() {
    let latin = b"email,name\na@b,J\xf6rg\nc@d,Ann\n";
    let found = csv(latin, None, None);
    assert_eq!(
        found[0],
        "! row 1 (line 2): column \"name\": it is not UTF-8; say what it is, as in --encoding windows-1252"
    );
    assert_eq!(
        found[1], "2@3 email=\"c@d\" name=\"Ann\"",
        "the next row is read"
    );
    assert_eq!(
        csv(latin, None, Some("latin1"))[0],
        "1@2 email=\"a@b\" name=\"Jörg\""
    );
    let utf16: Vec<u8> = "\u{feff}email,name\na@b,Jörg\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_eq!(csv(&utf16, None, None), ["1@2 email=\"a@b\" name=\"Jörg\""]);
    assert!(csv(latin, None, Some("klingon"))[0].contains("no encoding `klingon`"));
}

#[test]
fn numbers_are_numbers_only_if_they_look_the_same_afterwards() {
    let text = "a,b,c,d,e,f,g,h\n7,-2.5,007,12.50,1e3,+1,12345678901234567,\n";
    let want =
        "1@2 a=7 b=-2.5 c=\"007\" d=\"12.50\" e=\"1e3\" f=\"+1\" g=\"12345678901234567\" h=\"\"";
    assert_eq!(csv(text.as_bytes(), None, None), [want]);
}

#[test]
fn rows_of_another_length_are_bad_and_the_next_one_is_read() {
    let found = csv(b"email,name\na@b\nc@d,x,y\ne@f,z\n", None, None);
    assert_eq!(
        found[0],
        "! row 1 (line 2): it has 1 values, and the first line names 2 columns"
    );
    assert_eq!(
        found[1],
        "! row 2 (line 3): it has 3 values, and the first line names 2 columns"
    );
    assert_eq!(found[2], "3@4 email=\"e@f\" name=\"z\"");
    assert!(csv(b"", None, None)[0].contains("it is empty"));
    assert!(csv(b"a,b,a\n", None, None)[0].contains("`a` is there twice"));
}

/// A reader that has no end.
struct Endless;

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(b'x');
        Ok(buffer.len())
    }
}

#[test]
fn a_row_without_end_is_an_error_and_no_want_of_memory() {
    let input = Box::new(io::Cursor::new(b"a,b\n1,\"".to_vec()).chain(Endless));
    let mut rows = csv_rows::CsvRows::open("t.csv".into(), input, None, None).unwrap();
    assert!(all(&mut rows)[0].contains("a quote that does not end"));
    let mut rows = json_rows::JsonRows::new("t".into(), Box::new(Endless));
    assert_eq!(all(&mut rows), ["!! t: line 1: it has more than 16 MiB"]);
}

#[test]
fn json_lines_have_names_of_their_own() {
    let found = json(
        b"\xef\xbb\xbf{\"a\":1,\"b\":null}\n\n{\"a\":[1,{\"c\":\"x\"}]}\n[1]\n{\"a\":\n{\"b\":2.5}",
    );
    assert_eq!(found[0], "1@1 a=1 b=null");
    assert_eq!(found[1], "2@3 a=[1,{\"c\":\"x\"}]");
    assert!(
        found[2].starts_with("! row 3 (line 4): it is no JSON object"),
        "{}",
        found[2]
    );
    assert!(found[3].starts_with("! row 4 (line 5): it is no JSON object"));
    assert_eq!(found[4], "5@6 b=2.5");
}

#[test]
fn sqlite_gives_values_of_its_types_and_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("people.db");
    let made = rusqlite::Connection::open(&path).unwrap();
    made.execute_batch("CREATE TABLE p(email, n, x, y); INSERT INTO p VALUES('a@b', 7, 2.5, NULL), ('c@d', x'ff', 1, 2);")
        .unwrap();
    let rows = |query: &str| match sqlite_rows::SqliteRows::open(&path, query) {
        Ok(mut rows) => all(&mut rows),
        Err(error) => vec![shown(error)],
    };
    let found = rows("SELECT email, n AS points, x, y FROM p ORDER BY email");
    assert_eq!(found[0], "1@0 email=\"a@b\" points=7 x=2.5 y=null");
    assert_eq!(
        found[1],
        "! row 2: column \"points\": it is a BLOB, and no text"
    );
    assert!(
        rows("DELETE FROM p")[0].contains("no columns"),
        "{:?}",
        rows("DELETE FROM p")
    );
    assert!(rows("DELETE FROM p RETURNING email")[0].contains("readonly"));
    assert!(rows("SELECT email, email FROM p")[0].contains("`email` twice"));
    let unknown = rows("SELECT missing FROM p");
    assert!(unknown[0].contains("no such column"), "{unknown:?}");
}
