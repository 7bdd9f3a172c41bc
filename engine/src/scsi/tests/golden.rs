use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(text: &str) -> String {
    hex(text.as_bytes())
}

fn page(device: &mut Device, code: u8) -> String {
    let done = device.run(&[0x12, 1, code, 4, 0, 0], &[]);
    assert_good(&done);
    hex(&done.data_in)
}

const SERIAL: &str = "0123456789abcdef0011223344556677";
const NAA: &str = "38d7d919c975f0e5";

#[test]
fn standard_inquiry_data_have_these_bytes() {
    let mut device = Device::new();
    let done = device.run(&[0x12, 0, 0, 0, 255, 0], &[]);
    let expected = format!(
        "000006025b080002{}{}{}{}00a0046004c00960{}",
        text("ANKOLE  "),
        text("VOLUME          "),
        text("0001"),
        "00".repeat(22),
        "00".repeat(30)
    );
    assert_eq!(hex(&done.data_in), expected);
    assert_eq!(device.run(&[0x12, 0, 0, 0, 5, 0], &[]).data_in.len(), 5);
    assert_sense(&device.run(&[0x12, 0, 0x83, 0, 255, 0], &[]), INVALID_FIELD);
    assert_sense(&device.run(&[0x12, 1, 0x84, 0, 255, 0], &[]), INVALID_FIELD);
    assert_sense(&device.run(&[0x12, 2, 0, 0, 255, 0], &[]), INVALID_FIELD);
}

#[test]
fn the_naa_identifier_never_changes() {
    assert_eq!(hex(&identity().naa().to_bytes()), NAA);
    assert_eq!(
        Naa::of(VolumeId::from_bits(0)).to_bytes()[0] >> 4,
        3,
        "locally assigned"
    );
    assert_ne!(
        Naa::of(VolumeId::from_bits(1)),
        Naa::of(VolumeId::from_bits(2))
    );
}

#[test]
fn vital_product_data_have_these_bytes() {
    let mut device = Device::new();
    assert_eq!(page(&mut device, 0), "00000008008083868fb0b1b2");
    assert_eq!(page(&mut device, 0x80), format!("00800020{}", text(SERIAL)));
    let limits = concat!(
        "00b0003c",
        "00ff0008",
        "00002000",
        "00000800",
        "00000000",
        "00100000",
        "00000100",
        "00000008",
        "80000000",
        "0000000000008000",
        "000000080000000800000008"
    );
    assert_eq!(
        page(&mut device, 0xb0),
        format!("{limits}{}", "00".repeat(8))
    );
    assert_eq!(
        page(&mut device, 0xb1),
        format!("00b1003c00010040{}", "00".repeat(56))
    );
    assert_eq!(page(&mut device, 0xb2), "00b2000400e40200");
    assert_eq!(
        page(&mut device, 0x86),
        format!("0086003c000701{}", "00".repeat(57))
    );
    let copies = concat!(
        "0001000807830100840200",
        "03",
        "0004001c00000000000200100000040000000000",
        "000000000000000000000000",
        "000800040202e400",
        "80010020000000ff000000ff01fffe0009000000",
        "00000000000000000000000000000000"
    );
    assert_eq!(
        page(&mut device, 0x8f),
        format!("008f{:04x}{copies}", copies.len() / 2)
    );
}

#[test]
fn the_identification_page_has_these_designators() {
    let mut device = Device::new();
    let designators = [
        format!("01030008{NAA}"),
        format!("02010028{}{}", text("ANKOLE  "), text(SERIAL)),
        format!("03080018{}{}00000000", text("naa."), text(NAA)),
        "5194000400000001".to_owned(),
        format!("53980028{}{}0000", text(TARGET), text(",t,0x0001")),
        format!("53a80020{}000000", text(TARGET)),
    ]
    .concat();
    let expected = format!("0083{:04x}{designators}", designators.len() / 2);
    assert_eq!(page(&mut device, 0x83), expected);
}

#[test]
fn sense_data_have_these_bytes() {
    let invalid = Sense::invalid_cdb_bit(2, 5);
    assert_eq!(
        hex(&invalid.encode(SenseFormat::Fixed)),
        "700005000000000a00000000240000cd0002"
    );
    assert_eq!(
        hex(&invalid.encode(SenseFormat::Descriptor)),
        "720524000000000802060000cd000200"
    );
    let range = Sense::lba_out_of_range(0x1_0000_0000);
    assert_eq!(
        hex(&range.encode(SenseFormat::Fixed)),
        "700005000000000a00000000210000000000"
    );
    assert_eq!(
        hex(&range.encode(SenseFormat::Descriptor)),
        "720521000000000c000a80000000000100000000"
    );
    let parameter = Sense::invalid_parameter(9);
    assert_eq!(
        hex(&parameter.encode(SenseFormat::Fixed)),
        "700005000000000a00000000260000800009"
    );
}
