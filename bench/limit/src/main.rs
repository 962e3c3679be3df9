//! How fast SAGE's JSON over a WebSocket can be: what a careful Rust programmer reaches on one core a side, with
//! epoll and nothing in between. The figures of everything else are compared with it.
//!
//! `sage-limit serve` and `sage-limit drive` are the two ends of a peer of `bench/`, and speak JSON lines with
//! their parent as `bench/child.py` does. Both also work against any other SAGE peer. From the outside inwards:
//!
//! - `serve`, `drive`: what each end does
//! - `link`: a connection and its turn, over `poll`, `input` and `output`
//! - `opening`, `frame`: RFC 6455
//! - `message`, `canonical`, `json`: SAGE's JSON, as Go writes it and any other
//! - `random`, `fault`: ids, and why a connection ended

mod canonical;
mod drive;
mod fault;
mod frame;
mod input;
mod json;
mod link;
mod message;
mod opening;
mod output;
mod poll;
mod random;
mod serve;

use std::error::Error;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sage-limit: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let end = arguments.next();
    let mut spin = false;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--spin" => spin = true,
            "--cpu" => pin(arguments.next().ok_or(USAGE)?.parse()?)?,
            _ => return Err(USAGE.into()),
        }
    }
    raise_descriptor_limit()?;
    match end.as_deref() {
        Some("serve") => serve::serve(spin),
        Some("drive") => drive::drive(spin),
        _ => Err(USAGE.into()),
    }
}

fn pin(cpu: usize) -> rustix::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
}

/// As many descriptors as may be had without asking anyone.
fn raise_descriptor_limit() -> rustix::io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
}

const USAGE: &str = "usage: sage-limit serve|drive [--spin] [--cpu N]";
