//! One iSCSI session.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_int, c_void};
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::command::{Command, Completion, Kind, Outcome};
use super::ffi;

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// The initiator's IQN.
    pub name: String,
    /// With the name it makes the initiator's port, which reservations are held by; `None`: another
    /// one for each session.
    pub isid: Option<u32>,
    /// CRC32C on headers.
    pub header_digest: bool,
    /// Log in again for ever when the connection breaks, and send again what was unanswered.
    pub reconnect: bool,
    /// After so long a command without answer counts as failed; `None`: never.
    pub timeout: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "iqn.2026-01.io.ankole.chaos:initiator".to_owned(),
            isid: None,
            header_digest: false,
            reconnect: true,
            timeout: None,
        }
    }
}

/// No session came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is not `iscsi://HOST:PORT/IQN/LUN`.
    #[error("{url:?} is no iSCSI URL (iscsi://HOST:PORT/IQN/LUN): {reason}")]
    Url {
        /// As given.
        url: String,
        /// libiscsi's words.
        reason: String,
    },
    /// The portal, the target or the unit does not answer.
    #[error("cannot log in to {url}: {reason}")]
    Login {
        /// As given.
        url: String,
        /// libiscsi's words.
        reason: String,
    },
    /// A text with a zero byte, or libiscsi out of memory.
    #[error("cannot make an initiator: {0}")]
    Context(&'static str),
    /// READ CAPACITY did not tell.
    #[error("the unit at {url} does not tell its size: {reason}")]
    Capacity {
        /// As given.
        url: String,
        /// libiscsi's words.
        reason: String,
    },
}

/// The size of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a logical block.
    pub sector_bytes: u32,
    /// Bytes of the unit.
    pub bytes: u64,
}

type Done = Rc<RefCell<Vec<Completion>>>;

/// What a command needs until it is answered; libiscsi holds a pointer to it.
struct Pending {
    command: Command,
    iovec: ffi::Iovec,
    done: Done,
}

/// A session that is logged in.
pub struct Session {
    pub(super) context: NonNull<ffi::Context>,
    pub(super) lun: c_int,
    geometry: Geometry,
    done: Done,
    in_flight: usize,
}

pub(super) fn error_text(context: *mut ffi::Context) -> String {
    // SAFETY: the context is live; libiscsi returns a zero-terminated text that it owns.
    let text = unsafe { CStr::from_ptr(ffi::iscsi_get_error(context)) };
    text.to_string_lossy().trim().to_owned()
}

impl Session {
    /// Logs in to the unit at `iscsi://HOST:PORT/IQN/LUN` and asks for its size.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn connect(url: &str, options: &Options) -> Result<Self, ConnectError> {
        let name = CString::new(options.name.as_str())
            .map_err(|_| ConnectError::Context("the initiator's name holds a zero byte"))?;
        let text =
            CString::new(url).map_err(|_| ConnectError::Context("the URL holds a zero byte"))?;
        // SAFETY: the name is a zero-terminated text.
        let context = NonNull::new(unsafe { ffi::iscsi_create_context(name.as_ptr()) })
            .ok_or(ConnectError::Context("out of memory"))?;
        let mut session = Self {
            context,
            lun: 0,
            geometry: Geometry {
                sector_bytes: 0,
                bytes: 0,
            },
            done: Rc::default(),
            in_flight: 0,
        };
        // SAFETY: context and text are live.
        let parsed = unsafe { ffi::iscsi_parse_full_url(context.as_ptr(), text.as_ptr()) };
        let Some(parsed) = NonNull::new(parsed) else {
            return Err(ConnectError::Url {
                url: url.to_owned(),
                reason: error_text(context.as_ptr()),
            });
        };
        let logged_in = session.log_in(parsed, options);
        // SAFETY: made by iscsi_parse_full_url above and not used afterwards.
        unsafe { ffi::iscsi_destroy_url(parsed.as_ptr()) };
        if logged_in != 0 {
            let reason = error_text(context.as_ptr());
            return Err(ConnectError::Login {
                url: url.to_owned(),
                reason,
            });
        }
        session.geometry = session
            .read_capacity()
            .map_err(|reason| ConnectError::Capacity {
                url: url.to_owned(),
                reason,
            })?;
        Ok(session)
    }

    fn log_in(&mut self, url: NonNull<ffi::Url>, options: &Options) -> c_int {
        let digest = if options.header_digest {
            ffi::HEADER_DIGEST_CRC32C
        } else {
            ffi::HEADER_DIGEST_NONE
        };
        let context = self.context.as_ptr();
        // SAFETY: context and URL are live; the portal is a zero-terminated text inside the URL.
        unsafe {
            self.lun = (*url.as_ptr()).lun;
            ffi::iscsi_set_session_type(context, ffi::SESSION_NORMAL);
            ffi::iscsi_set_header_digest(context, digest);
            if let Some(isid) = options.isid {
                ffi::iscsi_set_isid_random(context, isid, 0);
            }
            if let Some(timeout) = options.timeout {
                let seconds = c_int::try_from(timeout.as_secs().max(1)).unwrap_or(c_int::MAX);
                ffi::iscsi_set_timeout(context, seconds);
            }
            if options.reconnect {
                ffi::iscsi_set_reconnect_max_retries(context, -1);
            } else {
                ffi::iscsi_set_noautoreconnect(context, 1);
            }
            ffi::iscsi_full_connect_sync(context, (*url.as_ptr()).portal.as_ptr(), self.lun)
        }
    }

    fn read_capacity(&mut self) -> Result<Geometry, String> {
        const UNIT_ATTENTIONS_MAX: usize = 8;
        let context = self.context.as_ptr();
        for _ in 0..UNIT_ATTENTIONS_MAX {
            // SAFETY: the context is live; the task is freed here.
            let ready = unsafe {
                let task = ffi::iscsi_testunitready_sync(context, self.lun);
                let ready = !task.is_null() && (*task).status == ffi::STATUS_GOOD;
                if !task.is_null() {
                    ffi::scsi_free_scsi_task(task);
                }
                ready
            };
            if ready {
                break;
            }
        }
        // SAFETY: the context is live; the unmarshalled answer lives as long as its task.
        unsafe {
            let task = ffi::iscsi_readcapacity16_sync(context, self.lun);
            if task.is_null() {
                return Err(error_text(context));
            }
            let capacity = ffi::scsi_datain_unmarshall(task).cast::<ffi::ReadCapacity16>();
            let geometry = if (*task).status == ffi::STATUS_GOOD && !capacity.is_null() {
                let sector_bytes = (*capacity).block_length;
                let sectors = (*capacity).returned_lba.saturating_add(1);
                Ok(Geometry {
                    sector_bytes,
                    bytes: sectors.saturating_mul(sector_bytes.into()),
                })
            } else {
                Err(error_text(context))
            };
            ffi::scsi_free_scsi_task(task);
            geometry
        }
    }

    /// The unit's size.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Commands that are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Sends a command; its completion comes out of [`Session::wait`].
    ///
    /// # Errors
    ///
    /// libiscsi's words when it cannot even be queued.
    pub fn submit(&mut self, command: Command) -> Result<(), String> {
        let (kind, offset) = (command.kind, command.offset);
        let bytes = u32::try_from(command.buffer.len()).map_err(|_| "buffer of over 4 GiB")?;
        let mut pending = Box::new(Pending {
            iovec: ffi::Iovec {
                base: ptr::null_mut(),
                len: command.buffer.len(),
            },
            command,
            done: Rc::clone(&self.done),
        });
        pending.iovec.base = pending.command.buffer.as_mut_ptr().cast();
        let iovec = ptr::addr_of_mut!(pending.iovec);
        let private = Box::into_raw(pending);
        let lba = offset / u64::from(self.geometry.sector_bytes);
        let sector = c_int::try_from(self.geometry.sector_bytes).unwrap_or(512);
        let (context, lun) = (self.context.as_ptr(), self.lun);
        let data = private.cast::<c_void>();
        // SAFETY: context is live. `private` stays allocated until the callback, which libiscsi
        // calls exactly once for each task it returned; the iovec and its buffer lie inside it.
        let task = unsafe {
            match kind {
                Kind::Read => ffi::iscsi_read16_iov_task(
                    context, lun, lba, bytes, sector, 0, 0, 0, 0, 0, answered, data, iovec, 1,
                ),
                Kind::Write { fua } => ffi::iscsi_write16_iov_task(
                    context,
                    lun,
                    lba,
                    ptr::null_mut(),
                    bytes,
                    sector,
                    0,
                    0,
                    c_int::from(fua),
                    0,
                    0,
                    answered,
                    data,
                    iovec,
                    1,
                ),
                Kind::Flush => {
                    ffi::iscsi_synchronizecache16_task(context, lun, 0, 0, 0, 0, answered, data)
                }
            }
        };
        if task.is_null() {
            // SAFETY: without a task there is no callback, so the box is still ours.
            drop(unsafe { Box::from_raw(private) });
            return Err(error_text(context));
        }
        self.in_flight += 1;
        Ok(())
    }

    /// Waits at most so long for the connection to move, and returns what was answered.
    ///
    /// # Errors
    ///
    /// libiscsi's words when the session is beyond repair.
    pub fn wait(&mut self, limit: Duration) -> Result<Vec<Completion>, String> {
        let context = self.context.as_ptr();
        // SAFETY: the context is live.
        let (fd, events) =
            unsafe { (ffi::iscsi_get_fd(context), ffi::iscsi_which_events(context)) };
        let wanted = PollFlags::from_bits_retain(u16::try_from(events).unwrap_or(0));
        let seen = if fd >= 0 {
            // SAFETY: the descriptor is the context's and stays open during the call.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            let mut fds = [PollFd::from_borrowed_fd(borrowed, wanted)];
            let limit = Timespec::try_from(limit).map_err(|error| error.to_string())?;
            match poll(&mut fds, Some(&limit)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => fds[0].revents().bits(),
                Err(error) => return Err(error.to_string()),
            }
        } else {
            // Between two tries to log in again libiscsi has no socket and asks to be called.
            std::thread::sleep(limit.min(Duration::from_millis(10)));
            0
        };
        // SAFETY: the context is live; callbacks run in here and touch only their own boxes.
        let served = unsafe { ffi::iscsi_service(context, c_int::from(seen)) };
        let completions = std::mem::take(&mut *self.done.borrow_mut());
        self.in_flight -= completions.len();
        if served != 0 && completions.is_empty() {
            return Err(error_text(context));
        }
        Ok(completions)
    }

    /// Ends the session in order.
    pub fn log_out(self) {
        // SAFETY: the context is live; Drop frees it afterwards.
        unsafe { ffi::iscsi_logout_sync(self.context.as_ptr()) };
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: made by iscsi_create_context and not used afterwards; unanswered commands are
        // called back in here and free their boxes.
        unsafe { ffi::iscsi_destroy_context(self.context.as_ptr()) };
    }
}

extern "C" fn answered(
    context: *mut ffi::Context,
    status: c_int,
    task: *mut c_void,
    private: *mut c_void,
) {
    // SAFETY: `private` is the box that submit gave away for this one call.
    let pending = unsafe { Box::from_raw(private.cast::<Pending>()) };
    let task = task.cast::<ffi::Task>();
    let unit_attention = status == ffi::STATUS_CHECK_CONDITION
        && !task.is_null()
        // SAFETY: libiscsi passes the task of the command, still allocated.
        && unsafe { (*task).sense.key } == ffi::SENSE_UNIT_ATTENTION;
    let outcome = match status {
        ffi::STATUS_GOOD => Outcome::Done,
        ffi::STATUS_BUSY | ffi::STATUS_TASK_SET_FULL => {
            Outcome::Again(format!("status {status:#x}"))
        }
        _ if unit_attention => Outcome::Again("unit attention".to_owned()),
        _ => Outcome::Failed(format!("status {status:#x}: {}", error_text(context))),
    };
    if !task.is_null() {
        // SAFETY: the task is ours to free once it is answered.
        unsafe { ffi::scsi_free_scsi_task(task) };
    }
    let Pending { command, done, .. } = *pending;
    let Command {
        token,
        kind,
        offset,
        buffer,
    } = command;
    done.borrow_mut().push(Completion {
        token,
        kind,
        offset,
        buffer,
        outcome,
    });
}
