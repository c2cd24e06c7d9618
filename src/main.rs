//! The `mailer` program: see [`mailer::cli`].

fn main() {}
