//! The opening of a connection: what the caller says before the endpoint's first answer.
//!
//! If the endpoint is lost meanwhile, an opening that may be sent twice without harm goes to another endpoint,
//! and the caller never learns of it. That is one request of a safe HTTP method (RFC 9110, section 9.2.1, and
//! what section 9.2.2 says about repeating), the hello of a TLS client (which commits to nothing), or nothing.

/// How much is kept of an opening; of a longer one nothing can be repeated.
const LONGEST: usize = 8 * 1024;
const SAFE_METHODS: [&[u8]; 3] = [b"GET ", b"HEAD ", b"OPTIONS "];
/// Content type `handshake` and the first byte of every version (RFC 8446, section 5.1).
const TLS_HANDSHAKE: [u8; 2] = [22, 3];
const TLS_HEADER: usize = 5;

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Opening {
    said: Vec<u8>,
}

impl Opening {
    pub fn said(&self) -> &[u8] {
        &self.said
    }

    /// How much more it can take.
    pub fn room(&self) -> usize {
        LONGEST - self.said.len()
    }

    /// Adds what has room.
    pub fn add(&mut self, bytes: &[u8]) {
        self.said.extend_from_slice(&bytes[..bytes.len().min(self.room())]);
    }

    /// Whether it may be said again, to another endpoint.
    pub fn is_repeatable(&self) -> bool {
        let said = self.said.as_slice();
        said.is_empty() || is_one_safe_request(said) || is_client_hello(said)
    }
}

/// One request without content, whole or in part: nothing follows the empty line.
fn is_one_safe_request(said: &[u8]) -> bool {
    if !SAFE_METHODS.iter().any(|method| said.starts_with(method)) {
        return false;
    }
    let mut rest = said;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..at];
        rest = &rest[at + 1..];
        if line.is_empty() || line == b"\r" {
            return rest.is_empty();
        }
    }
    true
}

/// One record of a handshake, whole or in part: no data follows it before the server answers.
fn is_client_hello(said: &[u8]) -> bool {
    let Some(header) = said.get(..TLS_HEADER) else { return said.starts_with(&TLS_HANDSHAKE) };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    header.starts_with(&TLS_HANDSHAKE) && said.len() <= TLS_HEADER + length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_no_harm_is_said_twice() {
        let long = [b"GET /".as_slice(), &vec![b'x'; LONGEST - 5]].concat();
        let cases: [(&[u8], bool); 18] = [
            (b"", true),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", true),
            (b"HEAD / HTTP/1.1\n\n", true),
            (b"OPTIONS * HTTP/1.1\r\n\r\n", true),
            (&long, true),
            (b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\n", false),
            (b"GET / HTTP/1.1\n\nx", false),
            (b"POST / HTTP/1.1\r\n\r\n", false),
            (b"PUT / HTTP/1.1\r\n\r\n", false),
            (b"DELETE / HTTP/1.1\r\n\r\n", false),
            (b"GETX / HTTP/1.1\r\n\r\n", false),
            (b"SET a 1\r\n", false),
            (&[22, 3, 1, 0, 3, 1, 2, 3], true),
            (&[22, 3, 1, 0, 3, 1], true),
            (&[22, 3, 1], true),
            (&[22, 3, 1, 0, 3, 1, 2, 3, 23], false),
            (&[22], false),
        ];
        for (said, repeatable) in cases {
            let mut opening = Opening::default();
            opening.add(said);
            assert_eq!(opening.is_repeatable(), repeatable, "{:?}", String::from_utf8_lossy(said));
        }
    }

    #[test]
    fn an_opening_is_bounded() {
        let mut opening = Opening::default();
        for _ in 0..100 {
            opening.add(&[b'x'; 1000]);
        }
        assert_eq!((opening.said().len(), opening.room()), (LONGEST, 0));
    }
}
