//! The part of libiscsi's C interface (`iscsi/iscsi.h`, `iscsi/scsi-lowlevel.h`, version 1.19)
//! that is used here.

use std::ffi::{c_char, c_int, c_uchar, c_void};

/// `struct iscsi_context`, opaque.
#[repr(C)]
pub(super) struct Context {
    _private: [u8; 0],
}

/// `struct iscsi_url`, its first fields: portal and target, 256 bytes each.
#[repr(C)]
pub(super) struct Url {
    pub(super) portal: [c_char; 256],
    pub(super) target: [c_char; 256],
    pub(super) user: [c_char; 256],
    pub(super) passwd: [c_char; 256],
    pub(super) target_user: [c_char; 256],
    pub(super) target_passwd: [c_char; 256],
    pub(super) lun: c_int,
}

/// `struct scsi_sense`, whole: more fields of the task follow it.
#[repr(C)]
pub(super) struct Sense {
    pub(super) error_type: c_uchar,
    pub(super) key: c_int,
    pub(super) ascq: c_int,
    /// Three fields of a bit each.
    pub(super) specific: c_uchar,
    pub(super) bit_pointer: c_uchar,
    pub(super) field_pointer: u16,
}

/// `struct scsi_data`.
#[repr(C)]
pub(super) struct Data {
    pub(super) size: c_int,
    pub(super) data: *mut c_uchar,
}

/// `struct scsi_task`, its first fields. Only ever behind a pointer that libiscsi made.
#[repr(C)]
pub(super) struct Task {
    pub(super) status: c_int,
    pub(super) cdb_size: c_int,
    pub(super) xfer_dir: c_int,
    pub(super) expxferlen: c_int,
    pub(super) cdb: [c_uchar; 16],
    pub(super) residual_status: c_int,
    pub(super) residual: usize,
    pub(super) sense: Sense,
    pub(super) datain: Data,
}

/// `struct scsi_iovec`.
#[repr(C)]
pub(super) struct Iovec {
    pub(super) base: *mut c_void,
    pub(super) len: usize,
}

/// `struct scsi_readcapacity16`, its first fields.
#[repr(C)]
pub(super) struct ReadCapacity16 {
    pub(super) returned_lba: u64,
    pub(super) block_length: u32,
}

/// `struct scsi_persistent_reserve_out_basic`.
#[repr(C)]
pub(super) struct ReserveOut {
    pub(super) key: u64,
    pub(super) service_action_key: u64,
    pub(super) spec_i_pt: u8,
    pub(super) all_tg_pt: u8,
    pub(super) aptpl: u8,
}

pub(super) type Callback = extern "C" fn(*mut Context, c_int, *mut c_void, *mut c_void);

pub(super) const STATUS_GOOD: c_int = 0;
pub(super) const STATUS_CHECK_CONDITION: c_int = 2;
pub(super) const STATUS_BUSY: c_int = 8;
pub(super) const STATUS_TASK_SET_FULL: c_int = 0x28;
pub(super) const SENSE_UNIT_ATTENTION: c_int = 6;
pub(super) const SESSION_NORMAL: c_int = 2;
pub(super) const HEADER_DIGEST_NONE: c_int = 0;
pub(super) const HEADER_DIGEST_CRC32C: c_int = 3;

// SAFETY of the declarations: they repeat the prototypes of the header named above.
unsafe extern "C" {
    pub(super) fn iscsi_create_context(name: *const c_char) -> *mut Context;
    pub(super) fn iscsi_destroy_context(context: *mut Context) -> c_int;
    pub(super) fn iscsi_parse_full_url(context: *mut Context, url: *const c_char) -> *mut Url;
    pub(super) fn iscsi_destroy_url(url: *mut Url);
    pub(super) fn iscsi_get_error(context: *mut Context) -> *const c_char;
    pub(super) fn iscsi_set_session_type(context: *mut Context, session_type: c_int) -> c_int;
    pub(super) fn iscsi_set_header_digest(context: *mut Context, digest: c_int) -> c_int;
    pub(super) fn iscsi_set_isid_random(
        context: *mut Context,
        random: u32,
        qualifier: u32,
    ) -> c_int;
    pub(super) fn iscsi_persistent_reserve_in_sync(
        context: *mut Context,
        lun: c_int,
        action: c_int,
        bytes_max: u16,
    ) -> *mut Task;
    pub(super) fn iscsi_persistent_reserve_out_sync(
        context: *mut Context,
        lun: c_int,
        action: c_int,
        scope: c_int,
        kind: c_int,
        parameters: *mut c_void,
    ) -> *mut Task;
    pub(super) fn iscsi_set_timeout(context: *mut Context, seconds: c_int) -> c_int;
    pub(super) fn iscsi_set_noautoreconnect(context: *mut Context, state: c_int);
    pub(super) fn iscsi_set_reconnect_max_retries(context: *mut Context, count: c_int);
    pub(super) fn iscsi_full_connect_sync(
        context: *mut Context,
        portal: *const c_char,
        lun: c_int,
    ) -> c_int;
    pub(super) fn iscsi_logout_sync(context: *mut Context) -> c_int;
    pub(super) fn iscsi_get_fd(context: *mut Context) -> c_int;
    pub(super) fn iscsi_which_events(context: *mut Context) -> c_int;
    pub(super) fn iscsi_service(context: *mut Context, revents: c_int) -> c_int;
    pub(super) fn iscsi_readcapacity16_sync(context: *mut Context, lun: c_int) -> *mut Task;
    pub(super) fn iscsi_testunitready_sync(context: *mut Context, lun: c_int) -> *mut Task;
    pub(super) fn scsi_datain_unmarshall(task: *mut Task) -> *mut c_void;
    pub(super) fn scsi_free_scsi_task(task: *mut Task);
    pub(super) fn iscsi_read16_iov_task(
        context: *mut Context,
        lun: c_int,
        lba: u64,
        bytes: u32,
        block_bytes: c_int,
        protect: c_int,
        dpo: c_int,
        fua: c_int,
        fua_nv: c_int,
        group: c_int,
        callback: Callback,
        private: *mut c_void,
        iov: *mut Iovec,
        iov_count: c_int,
    ) -> *mut Task;
    pub(super) fn iscsi_write16_iov_task(
        context: *mut Context,
        lun: c_int,
        lba: u64,
        data: *mut c_uchar,
        bytes: u32,
        block_bytes: c_int,
        protect: c_int,
        dpo: c_int,
        fua: c_int,
        fua_nv: c_int,
        group: c_int,
        callback: Callback,
        private: *mut c_void,
        iov: *mut Iovec,
        iov_count: c_int,
    ) -> *mut Task;
    pub(super) fn iscsi_synchronizecache16_task(
        context: *mut Context,
        lun: c_int,
        lba: u64,
        blocks: u32,
        sync_nv: c_int,
        immed: c_int,
        callback: Callback,
        private: *mut c_void,
    ) -> *mut Task;
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// As a C compiler lays them out (x86-64 and AArch64).
    #[test]
    fn the_fields_of_a_task_lie_where_the_library_puts_them() {
        assert_eq!(size_of::<Sense>(), 16);
        assert_eq!(offset_of!(Task, sense), 48);
        assert_eq!(offset_of!(Task, datain), 64);
    }
}
