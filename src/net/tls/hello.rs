//! Protocol and cipher suite as the ServerHello names them (RFC 5246 7.4.1.3, RFC 8446 4.1.3).

/// Cipher suites that servers choose today, by the IANA's numbers.
const SUITES: [(u16, &str); 17] = [
    (0x1301, "TLS_AES_128_GCM_SHA256"),
    (0x1302, "TLS_AES_256_GCM_SHA384"),
    (0x1303, "TLS_CHACHA20_POLY1305_SHA256"),
    (0xc02b, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    (0xc02c, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    (0xc02f, "ECDHE-RSA-AES128-GCM-SHA256"),
    (0xc030, "ECDHE-RSA-AES256-GCM-SHA384"),
    (0xcca8, "ECDHE-RSA-CHACHA20-POLY1305"),
    (0xcca9, "ECDHE-ECDSA-CHACHA20-POLY1305"),
    (0xc023, "ECDHE-ECDSA-AES128-SHA256"),
    (0xc027, "ECDHE-RSA-AES128-SHA256"),
    (0xc028, "ECDHE-RSA-AES256-SHA384"),
    (0xc013, "ECDHE-RSA-AES128-SHA"),
    (0xc014, "ECDHE-RSA-AES256-SHA"),
    (0x009e, "DHE-RSA-AES128-GCM-SHA256"),
    (0x009c, "AES128-GCM-SHA256"),
    (0x009d, "AES256-GCM-SHA384"),
];

const HANDSHAKE_RECORD: u8 = 22;
const SERVER_HELLO: u8 = 2;
const SUPPORTED_VERSIONS: u16 = 43;

/// Protocol and cipher of the ServerHello at the start of `bytes`, or `None` if there is none.
pub fn read(bytes: &[u8]) -> Option<(&'static str, String)> {
    let record = bytes.strip_prefix(&[HANDSHAKE_RECORD])?.get(4..)?;
    let hello = record.strip_prefix(&[SERVER_HELLO])?.get(3..)?;
    let legacy = word(hello, 0)?;
    // Version 2 octets, random 32, then the session id with its length.
    let session_id = usize::from(*hello.get(34)?);
    let after = hello.get(35 + session_id..)?;
    let suite = word(after, 0)?;
    // Suite 2 octets, compression 1, then the extensions with their length.
    let version = after.get(5..).and_then(supported_version).unwrap_or(legacy);
    let protocol = match version {
        0x0304 => "TLSv1.3",
        0x0303 => "TLSv1.2",
        0x0302 => "TLSv1.1",
        _ => "TLS",
    };
    let known = SUITES.iter().find(|(number, _)| *number == suite);
    let cipher = known.map_or_else(|| format!("0x{suite:04x}"), |(_, name)| (*name).to_owned());
    Some((protocol, cipher))
}

fn supported_version(mut extensions: &[u8]) -> Option<u16> {
    loop {
        let kind = word(extensions, 0)?;
        let length = usize::from(word(extensions, 2)?);
        let body = extensions.get(4..4 + length)?;
        if kind == SUPPORTED_VERSIONS {
            return word(body, 0);
        }
        extensions = extensions.get(4 + length..)?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_hello(version: u16, suite: u16, extensions: &[u8]) -> Vec<u8> {
        let mut hello = version.to_be_bytes().to_vec();
        hello.extend([7; 32]);
        hello.extend([3, 1, 2, 3]);
        hello.extend(suite.to_be_bytes());
        hello.push(0);
        hello.extend((extensions.len() as u16).to_be_bytes());
        hello.extend(extensions);
        let mut bytes = vec![22, 3, 3, 0, 0, 2, 0, 0, 0];
        bytes.extend(hello);
        bytes
    }

    #[test]
    fn both_generations_are_told_apart() {
        let new = server_hello(0x0303, 0x1302, &[0, 51, 0, 2, 9, 9, 0, 43, 0, 2, 3, 4]);
        assert_eq!(
            read(&new),
            Some(("TLSv1.3", "TLS_AES_256_GCM_SHA384".into()))
        );
        let old = server_hello(0x0303, 0xc030, &[]);
        assert_eq!(
            read(&old),
            Some(("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384".into()))
        );
        assert_eq!(
            read(&server_hello(0x0303, 0x5a5a, &[])).unwrap().1,
            "0x5a5a"
        );
    }

    #[test]
    fn bytes_cut_anywhere_are_no_panic() {
        let whole = server_hello(0x0303, 0x1301, &[0, 43, 0, 2, 3, 4]);
        for end in 0..whole.len() {
            let _ = read(&whole[..end]);
        }
        assert_eq!(
            read(b"220 not TLS at all, but a greeting of a plain server"),
            None
        );
    }
}
