//! Persistent reservations (SPC-4, 5.13), as far as they are asked for here.

use std::ffi::c_int;
use std::ptr;

use super::ffi;
use super::session::{Session, error_text};

const READ_KEYS: c_int = 0;
const READ_RESERVATION: c_int = 1;
const REGISTER: c_int = 0;
const RESERVE: c_int = 1;
const SCOPE_UNIT: c_int = 0;
/// WRITE EXCLUSIVE - REGISTRANTS ONLY.
const REGISTRANTS_WRITE: u8 = 5;
const BYTES_MAX: u16 = 4096;
/// Of either answer: generation and the length of what follows.
const HEADER_BYTES: usize = 8;
const TRIES: usize = 8;

/// Who may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Of every registered initiator port.
    pub keys: Vec<u64>,
    /// Key and type of the reservation.
    pub reservation: Option<(u64, u8)>,
}

impl Held {
    /// The one registration under this key, with the reservation that [`Session::reserve`] makes.
    pub fn only(key: u64) -> Self {
        Self {
            keys: vec![key],
            reservation: Some((key, REGISTRANTS_WRITE)),
        }
    }
}

impl Session {
    /// Registers this initiator port under this key, and lets only registered ones write.
    ///
    /// # Errors
    ///
    /// libiscsi's words when the target refuses.
    pub fn reserve(&mut self, key: u64) -> Result<(), String> {
        self.reserve_out(REGISTER, 0, key)?;
        self.reserve_out(RESERVE, key, 0)
    }

    fn reserve_out(&mut self, action: c_int, key: u64, new_key: u64) -> Result<(), String> {
        let (context, lun) = (self.context.as_ptr(), self.lun);
        self.repeat(|| {
            let mut parameters = ffi::ReserveOut {
                key,
                service_action_key: new_key,
                spec_i_pt: 0,
                all_tg_pt: 0,
                aptpl: 1,
            };
            // SAFETY: the context is live, and the parameters are read before the call returns.
            unsafe {
                ffi::iscsi_persistent_reserve_out_sync(
                    context,
                    lun,
                    action,
                    SCOPE_UNIT,
                    REGISTRANTS_WRITE.into(),
                    ptr::addr_of_mut!(parameters).cast(),
                )
            }
        })
        .map(drop)
    }

    /// Who may write now.
    ///
    /// # Errors
    ///
    /// libiscsi's words when the target does not answer.
    pub fn held(&mut self) -> Result<Held, String> {
        let keys = self.reserve_in(READ_KEYS)?;
        let reservation = self.reserve_in(READ_RESERVATION)?;
        Ok(Held {
            keys: keys.chunks_exact(8).filter_map(number).collect(),
            // The key, four obsolete bytes, a reserved one, scope and type.
            reservation: number(&reservation)
                .zip(reservation.get(13))
                .map(|(key, kind)| (key, kind & 0xf)),
        })
    }

    fn reserve_in(&mut self, action: c_int) -> Result<Vec<u8>, String> {
        let (context, lun) = (self.context.as_ptr(), self.lun);
        // SAFETY: the context is live.
        let answer = self.repeat(|| unsafe {
            ffi::iscsi_persistent_reserve_in_sync(context, lun, action, BYTES_MAX)
        })?;
        Ok(answer.get(HEADER_BYTES..).unwrap_or_default().to_vec())
    }

    /// Once more after each unit attention; what the target sent.
    fn repeat(&mut self, ask: impl Fn() -> *mut ffi::Task) -> Result<Vec<u8>, String> {
        let context = self.context.as_ptr();
        for _ in 0..TRIES {
            let task = ask();
            if task.is_null() {
                return Err(error_text(context));
            }
            // SAFETY: a task that libiscsi gave away, with its data; it is freed here and not used
            // afterwards.
            let (status, sense, data) = unsafe {
                let data = &(*task).datain;
                let bytes = match usize::try_from(data.size) {
                    Ok(size) if !data.data.is_null() => {
                        std::slice::from_raw_parts(data.data, size).to_vec()
                    }
                    _ => Vec::new(),
                };
                let told = ((*task).status, (*task).sense.key, bytes);
                ffi::scsi_free_scsi_task(task);
                told
            };
            match status {
                ffi::STATUS_GOOD => return Ok(data),
                ffi::STATUS_BUSY => {}
                ffi::STATUS_CHECK_CONDITION if sense == ffi::SENSE_UNIT_ATTENTION => {}
                _ => return Err(format!("status {status:#x}: {}", error_text(context))),
            }
        }
        Err(format!("asked to come again {TRIES} times"))
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}
