//! Close codes (RFC 6455 §7.4): what may stand in a close frame, parsed once, at the edge.

/// A close code that may stand in a close frame; one that may not cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1002: the peer broke RFC 6455.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1007: text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// 1008: the peer broke a rule of ours.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: a message over the limit.
    pub const TOO_BIG: Self = Self(1009);

    /// The code, if it is one that an endpoint may send: 1000-1003, 1007-1013 (§7.4.1 and its registry) or
    /// 3000-4999 (§7.4.2). 1014 is registered too, but the reference refuses it (docs/how-to/talking-to-go.md), and an
    /// echo would send it.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1013 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::CloseCode;

    #[test]
    fn takes_the_registered_and_the_private_and_nothing_else() {
        for code in 0..=u16::MAX {
            let valid = [1000, 1001, 1002, 1003].contains(&code)
                || (1007..=1013).contains(&code)
                || (3000..5000).contains(&code);
            assert_eq!(CloseCode::new(code).map(CloseCode::get), valid.then_some(code), "{code}");
        }
    }
}
