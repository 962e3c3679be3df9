//! Why a connection cannot go on.

use std::fmt;

use rustix::io::Errno;

/// What ended a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The peer shut its socket.
    Ended,
    /// The peer's close frame, with its code (1005 if it had none).
    Closed(u16),
    /// The peer broke a rule: the close code that says so, and the rule.
    Broken(u16, &'static str),
    /// The peer answered what it was not asked.
    Wrong(String),
    /// The operating system refused.
    System(Errno),
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => to.write_str("the peer shut the connection"),
            Self::Closed(code) => write!(to, "the peer closed the connection with {code}"),
            Self::Broken(_, rule) => to.write_str(rule),
            Self::Wrong(what) => to.write_str(what),
            Self::System(errno) => errno.fmt(to),
        }
    }
}

impl std::error::Error for Fault {}
