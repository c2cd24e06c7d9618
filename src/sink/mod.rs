//! The embedded receiver and its DNS.

mod crew;
pub mod dns;
mod dns_answer;
mod words;
pub mod zone;
pub mod zone_text;
