//! From the bytes of a DNS query to the bytes of its answer: no sockets, no threads.
//!
//! Returns `None` where nothing sensible can be answered (a response, a header cut short); never panics on any bytes. Negative
//! answers carry an SOA, so that resolvers may cache them (RFC 2308). Answers longer than the client can take by UDP are
//! truncated.

use std::net::IpAddr;
use std::time::Duration;

use trust_dns_resolver::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use trust_dns_resolver::proto::rr::rdata::{CNAME, MX, SOA};
use trust_dns_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::zone::{Data, Kind, Outcome, Zone, ZoneRecord};

/// Largest UDP answer: fits any path without fragments (RFC 9715).
const UDP_BYTES_MAX: u16 = 1232;
/// How long a negative answer may be cached, in seconds.
const NEGATIVE_TTL: u32 = 60;

/// What a query was about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Lower case, no final dot.
    pub name: String,
    /// The type of records.
    pub kind: Kind,
}

/// What to do about a query.
pub struct Response {
    /// What was asked for.
    pub asked: Asked,
    /// The answer; `None` if there is to be none.
    pub bytes: Option<Vec<u8>>,
    /// How long to wait before it is sent.
    pub delay: Duration,
}

/// Answers one query from the zone.
pub fn respond(zone: &Zone, query: &[u8], udp: bool) -> Option<Response> {
    let message = Message::from_vec(query).ok()?;
    if message.metadata.message_type != MessageType::Query {
        return None;
    }
    let question = message.queries.first()?;
    let asked = Asked {
        name: text_of(question.name()),
        kind: kind_of(question.query_type()),
    };
    if message.metadata.op_code != OpCode::Query || message.queries.len() != 1 {
        let reply = Message::error_msg(
            message.metadata.id,
            message.metadata.op_code,
            ResponseCode::NotImp,
        );
        return Some(Response {
            asked,
            bytes: reply.to_vec().ok(),
            delay: Duration::ZERO,
        });
    }
    let answer = zone.answer(&asked.name, asked.kind);
    if answer.outcome == Outcome::Silence {
        return Some(Response {
            asked,
            bytes: None,
            delay: Duration::ZERO,
        });
    }
    let reply = reply_to(&message, question, answer.outcome, &answer.records);
    let bytes = if udp {
        fitted(reply, message.max_payload().min(UDP_BYTES_MAX))
    } else {
        reply.to_vec().ok()
    };
    Some(Response {
        asked,
        bytes,
        delay: answer.delay,
    })
}

/// The reply message, complete but for its size.
fn reply_to(
    message: &Message,
    question: &Query,
    outcome: Outcome,
    records: &[ZoneRecord],
) -> Message {
    let mut reply = Message::response(message.metadata.id, OpCode::Query);
    reply.metadata.authoritative = true;
    // Resolvers ask this server as if it were a recursive one.
    reply.metadata.recursion_desired = message.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = match outcome {
        Outcome::NoSuchName => ResponseCode::NXDomain,
        Outcome::ServerFailure => ResponseCode::ServFail,
        Outcome::Records | Outcome::Silence => ResponseCode::NoError,
    };
    reply.add_query(question.clone());
    for record in records {
        if let Some(record) = wire_record(record, question.name()) {
            reply.add_answer(record);
        }
    }
    let has_wanted = reply
        .answers
        .iter()
        .any(|r| r.record_type() == question.query_type());
    if !has_wanted && outcome != Outcome::ServerFailure {
        reply.add_authority(soa(question.name()));
    }
    if message.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES_MAX);
        reply.set_edns(edns);
    }
    reply
}

/// The bytes of the reply, truncated if they are more than `bytes_max`.
fn fitted(reply: Message, bytes_max: u16) -> Option<Vec<u8>> {
    let bytes = reply.to_vec().ok()?;
    if bytes.len() <= usize::from(bytes_max) {
        return Some(bytes);
    }
    let mut cut = reply.truncate();
    cut.answers.clear();
    cut.authorities.clear();
    cut.metadata.truncation = true;
    cut.to_vec().ok()
}

/// The record as the codec wants it. The owner keeps the question's spelling where it is the same name.
fn wire_record(record: &ZoneRecord, question: &Name) -> Option<Record> {
    let owner = if record.owner == text_of(question) {
        question.clone()
    } else {
        absolute(&record.owner)?
    };
    let data = match &record.data {
        Data::Mx(preference, exchange) => RData::MX(MX::new(*preference, absolute(exchange)?)),
        Data::Address(IpAddr::V4(address)) => RData::A((*address).into()),
        Data::Address(IpAddr::V6(address)) => RData::AAAA((*address).into()),
        Data::Cname(target) => RData::CNAME(CNAME(absolute(target)?)),
    };
    Some(Record::from_rdata(owner, record.ttl, data))
}

/// The authority for negative answers: the top label of whatever was asked for.
fn soa(question: &Name) -> Record {
    let apex = question.trim_to(1);
    let server = Name::from_ascii("ns.test.").unwrap_or_default();
    let data = SOA::new(server.clone(), server, 1, 3600, 600, 86_400, NEGATIVE_TTL);
    Record::from_rdata(apex, NEGATIVE_TTL, RData::SOA(data))
}

fn absolute(name: &str) -> Option<Name> {
    if name.is_empty() {
        return Some(Name::root());
    }
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn text_of(name: &Name) -> String {
    let text = name.to_lowercase().to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

fn kind_of(kind: RecordType) -> Kind {
    match kind {
        RecordType::MX => Kind::Mx,
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::CNAME => Kind::Cname,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn answered(zone: &Zone, name: &str, kind: RecordType, udp: bool) -> Message {
        let bytes = respond(zone, &query(name, kind), udp)
            .unwrap()
            .bytes
            .unwrap();
        Message::from_vec(&bytes).unwrap()
    }

    #[test]
    fn negative_answers_carry_an_soa() {
        let mut zone = Zone::new();
        zone.add_mx("a.test", 0, ".");
        let nodata = answered(&zone, "a.test.", RecordType::A, true);
        assert_eq!(nodata.metadata.response_code, ResponseCode::NoError);
        assert_eq!(nodata.authorities[0].record_type(), RecordType::SOA);
        let missing = answered(&zone, "b.test.", RecordType::A, true);
        assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
        let null = answered(&zone, "a.test.", RecordType::MX, true);
        assert_eq!(null.answers[0].data, RData::MX(MX::new(0, Name::root())));
    }

    #[test]
    fn a_long_answer_is_truncated_by_udp_and_whole_by_tcp() {
        let mut zone = Zone::new();
        for n in 0..200 {
            zone.add_mx("many.test", n, &format!("exchange-number-{n}.many.test"));
        }
        let cut = answered(&zone, "many.test.", RecordType::MX, true);
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        let whole = answered(&zone, "many.test.", RecordType::MX, false);
        assert_eq!(whole.answers.len(), 200);
    }

    #[test]
    fn any_bytes_are_survived() {
        let zone = Zone::synthetic();
        let good = query("a.test.", RecordType::MX);
        let mut rng = fastrand::Rng::with_seed(11);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            bytes.truncate(rng.usize(..=bytes.len()));
            for _ in 0..rng.usize(..4) {
                if !bytes.is_empty() {
                    let at = rng.usize(..bytes.len());
                    bytes[at] = rng.u8(..);
                }
            }
            respond(&zone, &bytes, rng.bool());
        }
    }
}
