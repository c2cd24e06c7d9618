//! Rows of a query to a PostgreSQL database, fetched through a portal (a cursor of the server's), so many at a time, in a
//! transaction that may only read.
//!
//! The server itself turns values into text, so that every type looks as `psql` shows it; numbers, truth values and JSON keep their
//! kind. TLS as libpq's: `sslmode=disable`, `prefer` (without a word), `require` (encrypted, to whoever answers) and `verify-full`.
//!
//! Known limit: client and transaction are kept until the process ends, since the transaction borrows from the client.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use native_tls::TlsConnector;
use postgres::types::Type;
use postgres::{Client, Config, Portal, Row as Found, Statement, Transaction};
use postgres_native_tls::MakeTlsConnector;
use serde_json::Value as Json;

use super::{BadRow, DataError, Placed, Rows};
use crate::merge::{Columns, Row, RowError};

/// Rows that are fetched at once.
const ROWS_AT_ONCE: i32 = 1000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// libpq's word that the client library does not know: the certificate must be good, and the host's.
const VERIFY_FULL: &str = "sslmode=verify-full";

pub(super) struct PostgresRows {
    name: String,
    transaction: Transaction<'static>,
    portal: Portal,
    columns: Arc<Columns>,
    kinds: Vec<Kind>,
    fetched: VecDeque<Found>,
    is_at_end: bool,
    number: u64,
}

/// What a column's text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Text,
    /// Numbers and truth values, which are written in JSON as they are, and JSON.
    Json,
    /// Made JSON by the server: arrays and composite values.
    ToJson,
}

impl PostgresRows {
    /// `password`: for a URL that has none.
    pub(super) fn open(
        url: &str,
        query: &str,
        password: Option<String>,
    ) -> Result<PostgresRows, DataError> {
        let mut config: Config = url
            .replace(VERIFY_FULL, "sslmode=require")
            .parse()
            .map_err(|error| DataError::source("--postgres", told(&error)))?;
        if config.get_password().is_none()
            && let Some(password) = password
        {
            config.password(password);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        let name = match config.get_dbname() {
            Some(database) => format!("database {database}"),
            None => "the database".to_owned(),
        };
        let wrong = |error: postgres::Error| DataError::source(&name, told(&error));
        let tls = TlsConnector::builder()
            .danger_accept_invalid_certs(!url.contains(VERIFY_FULL))
            .danger_accept_invalid_hostnames(!url.contains(VERIFY_FULL))
            .build()
            .map_err(|error| DataError::source(&name, error))?;
        let client = config.connect(MakeTlsConnector::new(tls));
        let client = client.map_err(|error| DataError::Source {
            what: format!("{name}: {}", told(&error)),
            is_missing: true,
        })?;
        let client: &'static mut Client = Box::leak(Box::new(client));
        let reading = client.build_transaction().read_only(true);
        let mut transaction = reading.start().map_err(wrong)?;
        let query = query.trim().trim_end_matches(';');
        let statement = transaction.prepare(query).map_err(wrong)?;
        let columns = columns(&name, &statement)?;
        let types = statement.columns().iter().map(|column| column.type_());
        let kinds: Vec<Kind> = types.map(kind).collect();
        let portal = transaction
            .bind(&as_text(query, &columns, &kinds), &[])
            .map_err(wrong)?;
        Ok(PostgresRows {
            name,
            transaction,
            portal,
            columns: Arc::new(columns),
            kinds,
            fetched: VecDeque::new(),
            is_at_end: false,
            number: 0,
        })
    }

    fn fetch(&mut self) -> Result<Option<Found>, DataError> {
        if self.fetched.is_empty() && !self.is_at_end {
            let rows = self.transaction.query_portal(&self.portal, ROWS_AT_ONCE);
            let rows = rows.map_err(|error| DataError::source(&self.name, told(&error)))?;
            self.is_at_end = rows.is_empty();
            self.fetched = rows.into();
        }
        Ok(self.fetched.pop_front())
    }

    fn values(&self, found: &Found) -> Result<Vec<Json>, RowError> {
        let names = self.columns.names();
        let mut values = Vec::with_capacity(names.len());
        for (at, (name, kind)) in names.iter().zip(&self.kinds).enumerate() {
            let text: Option<&str> = found
                .try_get(at)
                .map_err(|error| RowError::of(name, told(&error)))?;
            values.push(match (text, kind) {
                (None, _) => Json::Null,
                (Some(text), Kind::Text) => text.into(),
                // NaN and Infinity are no JSON.
                (Some(text), _) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
            });
        }
        Ok(values)
    }
}

impl Rows for PostgresRows {
    fn next_row(&mut self) -> Result<Option<Placed>, DataError> {
        let Some(found) = self.fetch()? else {
            return Ok(None);
        };
        self.number += 1;
        let number = self.number;
        match self.values(&found) {
            Ok(values) => {
                let columns = Arc::clone(&self.columns);
                let row = Row {
                    columns,
                    values,
                    number,
                };
                Ok(Some(Placed { row, line: 0 }))
            }
            Err(error) => Err(DataError::Row(BadRow {
                number,
                line: 0,
                error,
            })),
        }
    }

    fn columns(&self) -> Option<&Arc<Columns>> {
        Some(&self.columns)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

fn columns(name: &str, statement: &Statement) -> Result<Columns, DataError> {
    let names = statement.columns().iter();
    let names: Vec<String> = names.map(|column| column.name().to_owned()).collect();
    if names.is_empty() {
        let what = "the query gives no columns: a SELECT is wanted";
        return Err(DataError::source(name, what));
    }
    Columns::new(names).map_err(|twice| {
        let what = format!("the query gives `{twice}` twice; name one of them with AS");
        DataError::source(name, what)
    })
}

/// `numeric` stays text: 12.50 is not 12.5 to those who read it.
fn kind(of: &Type) -> Kind {
    let is_plain = [
        Type::BOOL,
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::OID,
        Type::FLOAT4,
        Type::FLOAT8,
        Type::JSON,
        Type::JSONB,
    ]
    .contains(of);
    match of.kind() {
        _ if is_plain => Kind::Json,
        postgres::types::Kind::Array(_) | postgres::types::Kind::Composite(_) => Kind::ToJson,
        _ => Kind::Text,
    }
}

/// The query with all its values as text.
fn as_text(query: &str, columns: &Columns, kinds: &[Kind]) -> String {
    let each = columns.names().iter().zip(kinds).map(|(name, kind)| {
        let name = format!("\"{}\"", name.replace('"', "\"\""));
        match kind {
            Kind::ToJson => format!("to_json({name})::text"),
            Kind::Text | Kind::Json => format!("{name}::text"),
        }
    });
    // The line end closes a remark at the end of the query.
    let each: Vec<String> = each.collect();
    format!("SELECT {} FROM ({query}\n) AS rows", each.join(", "))
}

/// What the server says, or the library.
fn told(error: &postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        let hint = error.hint().map(|hint| format!(" ({hint})"));
        return format!("{}{}", error.message(), hint.unwrap_or_default());
    }
    let cause = std::error::Error::source(error);
    match cause {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_makes_text_of_values_whatever_their_columns_are_called() {
        let columns = Columns::new(["email", "a \"b\""].map(str::to_owned)).unwrap();
        assert_eq!(
            as_text("SELECT 1 -- x", &columns, &[Kind::Text, Kind::ToJson]),
            "SELECT \"email\"::text, to_json(\"a \"\"b\"\"\")::text FROM (SELECT 1 -- x\n) AS rows"
        );
        assert_eq!(kind(&Type::NUMERIC), Kind::Text);
        assert_eq!(kind(&Type::BOOL), Kind::Json);
        assert_eq!(kind(&Type::TEXT_ARRAY), Kind::ToJson);
    }

    #[test]
    fn what_is_no_url_is_an_error() {
        let opened = PostgresRows::open("postgres://x:y:z", "SELECT 1", None);
        match opened.err() {
            Some(DataError::Source { what, .. }) => assert!(what.contains("--postgres"), "{what}"),
            other => panic!("{other:?}"),
        }
    }
}
