//! JSON as Go writes it: no spaces, keys in the order of the tables, nothing escaped. One comparison a key, one
//! scan a value. Whatever looks otherwise is `None` here, and `json` reads it from the beginning.

use base64_simd::STANDARD;
use memchr::memchr;

use crate::json::plain_length;

/// What is still to be read.
pub(crate) struct Canonical<'a>(pub(crate) &'a str);

impl<'a> Canonical<'a> {
    /// Whether exactly this comes next; then it is taken.
    #[inline]
    pub(crate) fn has(&mut self, literal: &str) -> bool {
        match self.0.strip_prefix(literal) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// Takes exactly this.
    #[inline]
    pub(crate) fn expect(&mut self, literal: &str) -> Option<()> {
        self.has(literal).then_some(())
    }

    /// The rest of a string, its end quote taken too.
    #[inline]
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let (text, rest) = self.0.split_at_checked(plain_length(self.0.as_bytes()))?;
        self.0 = rest.strip_prefix('"')?;
        Some(text)
    }

    /// The text after `literal` if that comes next, else nothing.
    #[inline]
    pub(crate) fn text_after(&mut self, literal: &str) -> Option<&'a str> {
        if self.has(literal) { self.text() } else { Some("") }
    }

    /// The rest of a string of base64, its end quote taken too; decoded to the end of `to`.
    #[inline]
    pub(crate) fn base64(&mut self, to: &mut Vec<u8>) -> Option<()> {
        let (text, rest) = self.0.split_at_checked(memchr(b'"', self.0.as_bytes())?)?;
        // Were there an escape before the quote, its backslash would be no base64.
        STANDARD.decode_append(text, to).ok()?;
        self.0 = rest.strip_prefix('"')?;
        Some(())
    }

    /// The value ends here, with Go's newline or without.
    #[inline]
    pub(crate) fn end(&self) -> Option<()> {
        matches!(self.0, "\n" | "").then_some(())
    }
}
