//! `Poller`: all direct sockets of one event loop behind one descriptor, which the loop watches.
//!
//! [`Poller::poll`] is the loop's callback: it works through those that are ready, and at its end lets go what was put
//! off until then. An error of one connection ends that connection; KeyboardInterrupt and SystemExit go through, and
//! what was ready is reported again.

use pyo3::exceptions::{PyException, PyOSError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use sage_ws_io::{Interest, Ready, Token};

use crate::connection::Connection;
use crate::random::forks;
use crate::socket::{Round, Socket};
use crate::spare;
use crate::wake::{Settled, settle, step_all};

/// See the module.
///
/// Args:
///     loop: whose sockets they are.
///
/// Raises:
///     OSError: the process has no more descriptors.
#[pyclass(module = "sage_ws._core._rust")]
pub(crate) struct Poller {
    io: sage_ws_io::Poller,
    event_loop: Py<PyAny>,
    /// To make a future of this loop with.
    of_loop: Py<PyDict>,
    places: Vec<Place>,
    free: Vec<u32>,
    scratch: Vec<u8>,
    ready: Vec<Ready>,
    polling: bool,
    /// The loop's time at the beginning of the batch.
    now: f64,
    /// To be called at the end of the batch.
    later: Vec<Py<PyAny>>,
    unflushed: Vec<Py<Socket>>,
    flush_is_due: bool,
    /// How many forks there had been: a child shares its parent's epoll, and must leave it alone.
    forks: u32,
}

/// Where a socket is kept, and how many were before it.
struct Place {
    generation: u32,
    socket: Option<Py<Socket>>,
}

impl Poller {
    pub(crate) fn watch(
        &self,
        io: &sage_ws_io::Socket,
        token: Token,
        before: Interest,
        interest: Interest,
    ) -> PyResult<()> {
        if self.forks != forks() {
            return Ok(());
        }
        Ok(self.io.watch(io, token, before, interest)?)
    }

    pub(crate) fn remove(&mut self, token: Token) {
        if let Some(place) = self.places.get_mut(token.index as usize) {
            if place.generation == token.generation {
                place.generation = place.generation.wrapping_add(1);
                place.socket = None;
                self.free.push(token.index);
            }
        }
    }

    /// The loop's time, a batch's taken once; `None` where another loop is running, or none.
    pub(crate) fn time_in_loop(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        let running = RUNNING
            .get_or_try_init(py, || py.import("asyncio")?.getattr("_get_running_loop").map(Bound::unbind))?;
        if !running.bind(py).call0()?.is(&self.event_loop) {
            return Ok(None);
        }
        self.time(py).map(Some)
    }

    /// The loop's time, of the batch that is being worked through where there is one.
    pub(crate) fn time(&self, py: Python<'_>) -> PyResult<f64> {
        if self.polling {
            return Ok(self.now);
        }
        self.event_loop.bind(py).call_method0(intern!(py, "time"))?.extract()
    }

    fn owner<'py>(&self, py: Python<'py>, token: Token) -> Option<Bound<'py, Socket>> {
        let place = self.places.get(token.index as usize)?;
        let socket = place.socket.as_ref().filter(|_| place.generation == token.generation)?;
        Some(socket.bind(py).clone())
    }

    /// Has `socket` flushed at the end of the batch, or in the loop's next round.
    pub(crate) fn flush_later(slf: &Bound<'_, Self>, socket: &Bound<'_, Socket>) -> PyResult<()> {
        let mut poller = slf.try_borrow_mut()?;
        poller.unflushed.push(socket.clone().unbind());
        if poller.polling || poller.flush_is_due {
            return Ok(());
        }
        poller.flush_is_due = true;
        let event_loop = poller.event_loop.clone_ref(slf.py());
        drop(poller);
        let flush = slf.getattr(intern!(slf.py(), "flush"))?;
        event_loop.bind(slf.py()).call_method1(intern!(slf.py(), "call_soon"), (flush,)).map(drop)
    }

    fn work(slf: &Bound<'_, Self>, round: &mut Round<'_>, ready: &mut Vec<Ready>) -> PyResult<()> {
        let py = slf.py();
        let (mut rounds, mut patience) = (0, round.patience);
        while rounds < ROUNDS {
            slf.try_borrow_mut()?.io.wait(ready)?;
            if ready.is_empty() {
                if patience == 0 {
                    break;
                }
                patience -= 1;
                continue;
            }
            rounds += 1;
            for event in &*ready {
                let Some(socket) = slf.try_borrow()?.owner(py, event.token) else { continue };
                let mut outcome = Ok(());
                if event.writable {
                    outcome = Socket::writable(&socket);
                }
                if event.readable && outcome.is_ok() {
                    outcome = Socket::readable(&socket, round);
                }
                if let Err(error) = outcome {
                    Self::isolate(slf, &socket, error)?;
                }
            }
            Self::end_batch(slf)?;
        }
        Ok(())
    }

    /// What was put off until the end of a batch: callbacks first, for they have more to write.
    fn end_batch(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        loop {
            let later = std::mem::take(&mut slf.try_borrow_mut()?.later);
            if later.is_empty() {
                break;
            }
            let mut later = later.into_iter();
            while let Some(callback) = later.next() {
                let Err(error) = callback.bind(py).call0() else { continue };
                if let Err(error) = Self::report(slf, error, "a callback at the end of a batch failed") {
                    let mut poller = slf.try_borrow_mut()?;
                    poller.later.splice(..0, later);
                    return Err(error);
                }
            }
        }
        Self::flush(slf)
    }

    /// An error in the middle of a batch: the connection that it belongs to ends, the others do not notice.
    #[cold]
    fn isolate(slf: &Bound<'_, Self>, socket: &Bound<'_, Socket>, error: PyErr) -> PyResult<()> {
        let lost = error.value(slf.py()).clone().into_any().unbind();
        Self::report(slf, error, "a connection's values could not be taken")?;
        Socket::tell_transport(socket, Some(lost))
    }

    /// Tells the loop of an error; what is no Exception goes through.
    #[cold]
    fn report(slf: &Bound<'_, Self>, error: PyErr, text: &str) -> PyResult<()> {
        let py = slf.py();
        if !error.is_instance_of::<PyException>(py) {
            return Err(error);
        }
        let context = PyDict::new(py);
        context.set_item("message", format!("sage_ws: {text}"))?;
        context.set_item("exception", error.into_value(py))?;
        let event_loop = slf.try_borrow()?.event_loop.clone_ref(py);
        event_loop.bind(py).call_method1("call_exception_handler", (context,)).map(drop)
    }
}

#[pymethods]
impl Poller {
    #[new]
    #[pyo3(signature = (r#loop), text_signature = "(loop)")]
    fn py_new(py: Python<'_>, r#loop: Py<PyAny>) -> PyResult<Self> {
        let of_loop = PyDict::new(py);
        of_loop.set_item(intern!(py, "loop"), &r#loop)?;
        Ok(Self {
            io: sage_ws_io::Poller::new()?,
            event_loop: r#loop,
            of_loop: of_loop.unbind(),
            places: Vec::new(),
            free: Vec::new(),
            scratch: Vec::new(),
            ready: Vec::new(),
            polling: false,
            now: 0.0,
            later: Vec::new(),
            unflushed: Vec::new(),
            flush_is_due: false,
            forks: forks(),
        })
    }

    /// The descriptor that becomes readable when a socket is ready.
    fn fileno(&self) -> i32 {
        use std::os::fd::{AsFd, AsRawFd};
        self.io.as_fd().as_raw_fd()
    }

    /// Take a share in a connected socket; the caller closes its own.
    ///
    /// Args:
    ///     fd: the socket's descriptor.
    ///     connection: what it feeds.
    ///     link: gets its values, by `values_received(values)`, and is told to `pause_writing()`.
    ///
    /// Raises:
    ///     OSError: it is no descriptor, or the process has no more of them.
    fn add<'py>(
        slf: &Bound<'py, Self>,
        fd: i32,
        connection: Py<Connection>,
        link: Py<PyAny>,
    ) -> PyResult<Bound<'py, Socket>> {
        let py = slf.py();
        let io = sage_ws_io::Socket::duplicate(fd)?;
        let mut poller = slf.try_borrow_mut()?;
        let index = if let Some(index) = poller.free.pop() {
            index
        } else {
            poller.places.push(Place { generation: 0, socket: None });
            u32::try_from(poller.places.len() - 1)
                .map_err(|_| PyOSError::new_err("more sockets than a poller has numbers for"))?
        };
        let token = Token { index, generation: poller.places[index as usize].generation };
        let of_loop = poller.of_loop.clone_ref(py);
        drop(poller);
        let socket = Socket::new(slf.clone().unbind(), of_loop, connection, link, io, token);
        let socket = Bound::new(py, socket)?;
        slf.try_borrow_mut()?.places[index as usize].socket = Some(socket.clone().unbind());
        Ok(socket)
    }

    /// Work through those that are ready now. The loop calls it when `fileno` is readable.
    ///
    /// Args:
    ///     patience: how many times to look again where none is.
    #[pyo3(signature = (patience = 0), text_signature = "($self, patience=0)")]
    fn poll(slf: &Bound<'_, Self>, patience: u32) -> PyResult<()> {
        let py = slf.py();
        let mut poller = slf.try_borrow_mut()?;
        if poller.polling || poller.forks != forks() {
            return Ok(());
        }
        poller.polling = true;
        let event_loop = poller.event_loop.clone_ref(py);
        let mut scratch = std::mem::take(&mut poller.scratch);
        let mut ready = std::mem::take(&mut poller.ready);
        drop(poller);
        scratch.resize(SCRATCH, 0);
        let mut buffer = spare::take();
        let outcome = (|| {
            let now = event_loop.bind(py).call_method0(intern!(py, "time"))?.extract()?;
            slf.try_borrow_mut()?.now = now;
            let may_step = current_task(py)?.is_none();
            let mut round = Round { scratch: &mut scratch, buffer: &mut buffer, now, may_step, patience };
            Self::work(slf, &mut round, &mut ready)
        })();
        spare::give(buffer);
        let mut poller = slf.try_borrow_mut()?;
        poller.polling = false;
        (poller.scratch, poller.ready) = (scratch, ready);
        drop(poller);
        if outcome.is_err() {
            Self::put_off(slf)?;
        }
        outcome
    }

    /// Call back at the end of the batch at hand, where no task runs; else in the loop's next round.
    pub(crate) fn call_later(slf: &Bound<'_, Self>, callback: Py<PyAny>) -> PyResult<()> {
        let mut poller = slf.try_borrow_mut()?;
        if poller.polling {
            poller.later.push(callback);
            return Ok(());
        }
        let event_loop = poller.event_loop.clone_ref(slf.py());
        drop(poller);
        event_loop.bind(slf.py()).call_method1(intern!(slf.py(), "call_soon"), (callback,)).map(drop)
    }

    /// Write what was put off.
    fn flush(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let mut poller = slf.try_borrow_mut()?;
        poller.flush_is_due = false;
        let unflushed = std::mem::take(&mut poller.unflushed);
        drop(poller);
        let mut unflushed = unflushed.into_iter();
        while let Some(socket) = unflushed.next() {
            let socket = socket.bind(py);
            let Err(error) = Socket::flush(socket) else { continue };
            if let Err(error) = Self::isolate(slf, socket, error) {
                let mut poller = slf.try_borrow_mut()?;
                poller.unflushed.splice(..0, unflushed);
                let polling = poller.polling;
                drop(poller);
                if !polling {
                    Self::put_off(slf)?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Sockets that are open.
    fn __len__(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Wake whoever awaits a future, with None for a result; now where no task is running.
    #[staticmethod]
    fn wake<'py>(py: Python<'py>, future: Bound<'py, PyAny>) -> PyResult<()> {
        match settle(future, py.None().bind(py))? {
            Settled::Sleeper(sleeper) => step_all(&[sleeper], current_task(py)?.is_none()),
            Settled::Scheduled | Settled::Missed => Ok(()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        visit.call(&self.of_loop)?;
        self.later.iter().try_for_each(|callback| visit.call(callback))?;
        self.unflushed.iter().try_for_each(|socket| visit.call(socket))?;
        self.places.iter().try_for_each(|place| visit.call(&place.socket))
    }

    fn __clear__(&mut self) {
        self.later.clear();
        self.unflushed.clear();
        self.places.clear();
        self.free.clear();
    }
}

impl Poller {
    /// A batch was broken off: what it had put off is the loop's next round's.
    #[cold]
    fn put_off(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let mut poller = slf.try_borrow_mut()?;
        let event_loop = poller.event_loop.clone_ref(py);
        let later = std::mem::take(&mut poller.later);
        poller.flush_is_due = true;
        drop(poller);
        let flush = slf.getattr(intern!(py, "flush"))?;
        for callback in later.into_iter().chain([flush.unbind()]) {
            event_loop.bind(py).call_method1(intern!(py, "call_soon"), (callback,))?;
        }
        Ok(())
    }
}

/// The task that runs now, of whatever loop of this thread.
fn current_task(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let current_task = CURRENT_TASK
        .get_or_try_init(py, || py.import("asyncio")?.getattr("current_task").map(Bound::unbind))?;
    Ok(Some(current_task.bind(py).call0()?).filter(|task| !task.is_none()))
}

static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static CURRENT_TASK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Bytes of one read: a large message in few of them, and the second-level cache has room for it.
const SCRATCH: usize = 256 * 1024;
/// Batches of one call, before the loop's other callbacks have their turn.
const ROUNDS: usize = 4;
