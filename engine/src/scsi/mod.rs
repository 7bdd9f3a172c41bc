//! The SCSI device: commands, sense, inquiry data, reservations (SPC-4, SBC-3).
//!
//! Placeholder: replaced by its owner.
