//! The opening handshake (RFC 6455 §4), both ends.

use base64_simd::STANDARD;
use memchr::memmem;
use sha1::{Digest, Sha1};

/// Bytes of the head that `bytes` begins with, its empty line included.
pub(crate) fn head_length(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The answer to a client's head, or the status of a refusal.
pub(crate) fn answer(head: &[u8]) -> Result<String, &'static str> {
    let (line, headers) = parse(head).ok_or("400 Bad Request")?;
    let Some(target) = line.strip_prefix("GET ").and_then(|rest| rest.strip_suffix(" HTTP/1.1")) else {
        return Err("405 Method Not Allowed");
    };
    if target != "/ws" {
        return Err("404 Not Found");
    }
    if !(names(&headers, "upgrade", "websocket") && names(&headers, "connection", "upgrade")) {
        return Err("426 Upgrade Required");
    }
    if header(&headers, "sec-websocket-version") != Some("13") {
        return Err("426 Upgrade Required");
    }
    let key = header(&headers, "sec-websocket-key").ok_or("400 Bad Request")?;
    if !STANDARD.decode_to_vec(key).is_ok_and(|key| key.len() == 16) {
        return Err("400 Bad Request");
    }
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept(key)
    ))
}

/// A client's head.
pub(crate) fn request(authority: &str, path: &str, key: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Whether a server's head accepts the client's; nothing was offered, so that nothing may be chosen.
pub(crate) fn check(head: &[u8], key: &str) -> Result<(), String> {
    let (line, headers) = parse(head).ok_or("the answer to the opening handshake is no HTTP")?;
    if !line.starts_with("HTTP/1.1 101 ") {
        return Err(format!("the server refused the opening handshake: {line}"));
    }
    if header(&headers, "sec-websocket-accept") != Some(&accept(key)) {
        return Err("the server accepted another opening handshake".to_owned());
    }
    if header(&headers, "sec-websocket-extensions").is_some() {
        return Err("the server chose an extension that was not offered".to_owned());
    }
    Ok(())
}

fn accept(key: &str) -> String {
    let digest =
        Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    STANDARD.encode_to_string(digest)
}

type Headers<'a> = Vec<(&'a str, &'a str)>;

fn parse(head: &[u8]) -> Option<(&str, Headers<'_>)> {
    let mut lines = std::str::from_utf8(head).ok()?.trim_end().split("\r\n");
    let first = lines.next()?;
    let headers: Option<Headers<'_>> =
        lines.map(|line| line.split_once(':').map(|(name, value)| (name, value.trim()))).collect();
    Some((first, headers?))
}

fn header<'a>(headers: &Headers<'a>, name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|&(_, value)| value)
}

/// A header's list holds the token.
fn names(headers: &Headers<'_>, name: &str, token: &str) -> bool {
    header(headers, name)
        .is_some_and(|list| list.split(',').any(|one| one.trim().eq_ignore_ascii_case(token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    #[test]
    fn both_ends_agree_on_the_example_of_the_rfc() {
        let head = request("localhost:1", "/ws", KEY);
        assert_eq!(head_length(head.as_bytes()), Some(head.len()));
        assert_eq!(head_length(&head.as_bytes()[..head.len() - 1]), None);
        let answered = answer(head.as_bytes()).unwrap();
        assert!(answered.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert_eq!(check(answered.as_bytes(), KEY), Ok(()));
        assert!(check(answered.as_bytes(), "another key").is_err());
        assert!(
            check(b"HTTP/1.1 404 Not Found\r\n\r\n", KEY).unwrap_err().ends_with("HTTP/1.1 404 Not Found")
        );
        let extended =
            answered.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
        assert!(check(extended.as_bytes(), KEY).is_err());
    }

    #[test]
    fn headers_are_read_as_lists_whatever_their_case() {
        let head = request("localhost:1", "/ws", KEY)
            .replace("Connection: Upgrade", "cONNECTION:keep-alive, upgrade")
            .replace("Upgrade: websocket", "upgrade: WebSocket");
        assert!(answer(head.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_opening_handshake_is_refused() {
        let refused = |from: &str, to: &str| {
            answer(request("localhost:1", "/ws", KEY).replace(from, to).as_bytes()).unwrap_err()[..3]
                .to_owned()
        };
        assert_eq!(refused("GET", "POST"), "405");
        assert_eq!(refused("/ws", "/other"), "404");
        assert_eq!(refused("Upgrade: websocket", "Upgrade: h2c"), "426");
        assert_eq!(refused("Version: 13", "Version: 8"), "426");
        assert_eq!(refused(KEY, "dGhlIHNhbXBsZQ=="), "400");
        assert_eq!(refused("Host: localhost:1", "Host"), "400");
    }
}
