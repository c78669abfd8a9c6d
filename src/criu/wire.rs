// SPDX-License-Identifier: Apache-2.0
//! Protobuf at the level of its bytes, see <https://protobuf.dev/programming-guides/encoding/>.
//!
//! Why not a crate: those that decode into types either drop fields that they do not know (prost) or write them in another
//! order and length than they were (protobuf). An image must come out with nothing changed but the field that was meant.
//!
//! Nothing is guessed at. What CRIU's own decoder would refuse or resolve silently (a field twice, groups, numbers that do
//! not fit) is an error here, with its offset in the file.

use std::fmt;
use std::ops::Range;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Where, in bytes from the start of the file.
    pub offset: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "byte {}: {}", self.offset, self.what)
    }
}

impl std::error::Error for Malformed {}

type Result<T> = std::result::Result<T, Malformed>;

/// A part of a file that is read from its start to its end, and never beyond.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    /// The whole file.
    pub fn new(file: &'a [u8]) -> Self {
        Self { file, at: 0, end: file.len() }
    }

    /// Where it stands, in bytes from the start of the file.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Nothing is left.
    pub fn is_at_end(&self) -> bool {
        self.at == self.end
    }

    /// An error about where it stands.
    pub fn malformed<T>(&self, what: &'static str) -> Result<T> {
        Err(Malformed { offset: self.at, what })
    }

    fn take(&mut self, length: u64, what: &'static str) -> Result<Self> {
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        let Some(end) = end.filter(|end| *end <= self.end) else { return self.malformed(what) };
        let taken = Self { end, ..*self };
        self.at = end;
        Ok(taken)
    }

    /// What is left.
    pub fn bytes(&self) -> &'a [u8] {
        self.file.get(self.at..self.end).unwrap_or_default()
    }

    /// A little-endian number of four bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4, "the file ends within a number of four bytes")?.bytes();
        bytes.try_into().map(u32::from_le_bytes).or_else(|_| self.malformed("not four bytes"))
    }

    /// A message after its length in four bytes, as CRIU stores each.
    ///
    /// # Errors
    /// The length reaches beyond the end of the file.
    pub fn record(&mut self) -> Result<Message<'a>> {
        let start = self.at;
        let length = self.u32()?;
        let body = self
            .take(length.into(), "a message is longer than its file")
            .map_err(|error| Malformed { offset: start, ..error })?;
        Message::parse(body)
    }

    /// A number in groups of seven bits. Padded ones are legal, and stay as they are.
    fn varint(&mut self) -> Result<u64> {
        let start = self.at;
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let [byte] = *self.take(1, "the message ends within a number")?.bytes() else {
                return self.malformed("the message ends within a number");
            };
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed { offset: start, what: "a number of more than 64 bits" })
    }
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Number(u64),
    /// Text, or another message.
    Bytes(Cursor<'a>),
    /// Numbers of fixed size, of which there are none among the fields that matter here.
    Fixed,
}

#[derive(Debug)]
struct Field<'a> {
    number: u64,
    /// In the file: of the tag.
    offset: usize,
    /// In the file: of what follows the tag, for text and messages with their length.
    body: Range<usize>,
    value: Value<'a>,
}

impl<'a> Field<'a> {
    /// Takes the next one; none at the end.
    fn next(rest: &mut Cursor<'a>) -> Result<Option<Self>> {
        if rest.is_at_end() {
            return Ok(None);
        }
        let offset = rest.at;
        let tag = rest.varint()?;
        let number = tag >> 3;
        if !(1..1 << 29).contains(&number) {
            return Err(Malformed { offset, what: "a field number that protobuf does not have" });
        }
        let start = rest.at;
        let value = match tag & 7 {
            0 => Value::Number(rest.varint()?),
            1 => rest.take(8, "the message ends within a number of eight bytes").map(|_| Value::Fixed)?,
            2 => {
                let length = rest.varint()?;
                let too_long = |error| Malformed { offset: start, ..error };
                Value::Bytes(rest.take(length, "a field is longer than its message").map_err(too_long)?)
            }
            5 => rest.take(4, "the message ends within a number of four bytes").map(|_| Value::Fixed)?,
            _ => return Err(Malformed { offset, what: "a kind of field that CRIU does not use" }),
        };
        Ok(Some(Self { number, offset, body: start..rest.at, value }))
    }
}

/// A number in a file, and which bytes it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    /// Its value.
    pub value: u32,
    /// Its bytes, without the tag, counted from the start of the file.
    pub bytes: Range<usize>,
}

/// A message whose fields are all well-formed; those that hold messages are not looked into before they are asked for.
///
/// It keeps where it is and nothing else: fields can be as short as two bytes, and a list of them would take many times the
/// memory of the file. Whoever asks for one goes through all.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    body: Cursor<'a>,
}

impl<'a> Message<'a> {
    /// Reads to the end of what is given.
    ///
    /// # Errors
    /// A field is not well-formed or reaches beyond the end.
    pub fn parse(body: Cursor<'a>) -> Result<Self> {
        let mut rest = body;
        while Field::next(&mut rest)?.is_some() {}
        Ok(Self { body })
    }

    /// Where it begins, in bytes from the start of the file.
    pub fn offset(&self) -> usize {
        self.body.at
    }

    fn one(&self, number: u64) -> Result<Option<Field<'a>>> {
        let mut rest = self.body;
        let mut one = None;
        while let Some(field) = Field::next(&mut rest)? {
            if field.number != number {
                continue;
            }
            if one.is_some() {
                return Err(Malformed { offset: field.offset, what: "a field is there twice" });
            }
            one = Some(field);
        }
        Ok(one)
    }

    /// The field `number`, which is a uint32.
    ///
    /// # Errors
    /// It is there twice, is no number, or has more than 32 bits.
    pub fn number(&self, number: u64) -> Result<Option<Number>> {
        let Some(field) = self.one(number)? else { return Ok(None) };
        let malformed = |what| Err(Malformed { offset: field.offset, what });
        let Value::Number(value) = field.value else { return malformed("a field should be a number") };
        let Ok(value) = u32::try_from(value) else { return malformed("a number of more than 32 bits") };
        Ok(Some(Number { value, bytes: field.body }))
    }

    /// The field `number`, which is a uint32 that has to be there.
    ///
    /// # Errors
    /// As [`Message::number`], or it is not there.
    pub fn required(&self, number: u64) -> Result<u32> {
        let missing = Malformed { offset: self.offset(), what: "a message lacks a field that it must have" };
        Ok(self.number(number)?.ok_or(missing)?.value)
    }

    /// The field `number`, which is a uint64 that has to be there, up to what an i64 holds.
    ///
    /// # Errors
    /// It is not there, is there twice, or is no such number.
    pub fn required_i64(&self, number: u64) -> Result<i64> {
        let Some(field) = self.one(number)? else {
            return Err(Malformed { offset: self.offset(), what: "a message lacks a field that it must have" });
        };
        let value = if let Value::Number(value) = field.value { i64::try_from(value).ok() } else { None };
        value.ok_or(Malformed { offset: field.offset, what: "a field should be a number below 2^63" })
    }

    /// The field `number`, which is text or a message.
    ///
    /// # Errors
    /// It is there twice, or is something else.
    pub fn bytes(&self, number: u64) -> Result<Option<Cursor<'a>>> {
        match self.one(number)? {
            None => Ok(None),
            Some(Field { value: Value::Bytes(bytes), .. }) => Ok(Some(bytes)),
            Some(field) => Err(Malformed { offset: field.offset, what: "a field should be text or a message" }),
        }
    }

    /// The field `number`, which is a message that has to be there.
    ///
    /// # Errors
    /// As [`Message::bytes`], or it is not there, or its own fields are not well-formed.
    pub fn message(&self, number: u64) -> Result<Self> {
        let missing = Malformed { offset: self.offset(), what: "a message lacks a field that it must have" };
        Self::parse(self.bytes(number)?.ok_or(missing)?)
    }
}

/// `value` as a number of protobuf, in as few bytes as it takes.
pub fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5);
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            bytes.push(low & 0x7f);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Message<'_>> {
        Message::parse(Cursor::new(bytes))
    }

    fn error(bytes: &[u8]) -> (usize, &'static str) {
        let error = parse(bytes).unwrap_err();
        (error.offset, error.what)
    }

    #[test]
    fn fields_are_found_among_others() {
        // 1: 8 bytes, 2: text, 3: 4 bytes, 12: a padded number
        let bytes = [9, 1, 2, 3, 4, 5, 6, 7, 8, 0x12, 2, b'h', b'i', 0x1d, 0, 0, 0, 0, 0x60, 0x85, 0x80, 0];
        let message = parse(&bytes).unwrap();
        assert_eq!(message.number(12), Ok(Some(Number { value: 5, bytes: 19..22 })));
        assert_eq!(message.number(11), Ok(None));
        assert_eq!(message.bytes(2).unwrap().unwrap().bytes(), b"hi");
        assert_eq!(message.required(7).unwrap_err().offset, 0);
        assert_eq!(message.number(2).unwrap_err().offset, 9);
        assert_eq!(message.bytes(3).unwrap_err().offset, 13);
        assert!(parse(&[]).is_ok());
    }

    #[test]
    fn what_protobuf_does_not_allow_is_refused_where_it_stands() {
        assert_eq!(error(&[0x60]), (1, "the message ends within a number"));
        assert_eq!(error(&[0x60, 0x80]), (2, "the message ends within a number"));
        assert_eq!(error(&[&[0x60][..], &[0x80; 10], &[0]].concat()), (1, "a number of more than 64 bits"));
        assert_eq!(error(&[&[0x60][..], &[0x80; 9], &[2]].concat()), (1, "a number of more than 64 bits"));
        assert_eq!(error(&[8, 1, 0x12, 3, 1, 2]), (3, "a field is longer than its message"));
        let huge = [&[0x12][..], &[0xff; 9], &[1]].concat();
        assert_eq!(error(&huge), (1, "a field is longer than its message"));
        assert_eq!(error(&[0x0b, 0x0c]), (0, "a kind of field that CRIU does not use"));
        assert_eq!(error(&[0, 0]), (0, "a field number that protobuf does not have"));
        assert_eq!(error(&[9, 0, 0]), (1, "the message ends within a number of eight bytes"));
        assert_eq!(error(&[0x0d, 0]), (1, "the message ends within a number of four bytes"));
        let twice = parse(&[0x60, 1, 0x60, 1]).map(|message| message.number(12)).unwrap();
        assert_eq!(twice, Err(Malformed { offset: 2, what: "a field is there twice" }));
        let wide = [0x60, 0x80, 0x80, 0x80, 0x80, 0x10];
        assert_eq!(parse(&wide).unwrap().number(12).unwrap_err().what, "a number of more than 32 bits");
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for value in [0, 1, 127, 128, 300, 0x1f_ffff, 0x20_0000, u32::MAX] {
            let bytes = varint(value);
            assert_eq!(Cursor::new(&bytes).varint(), Ok(u64::from(value)));
        }
        assert_eq!(varint(300), [0xac, 2]);
    }

    #[test]
    fn a_record_stays_within_its_file() {
        assert_eq!(Cursor::new(&[3, 0, 0, 0, 8, 1]).record().unwrap_err().offset, 0);
        assert_eq!(Cursor::new(&[0xff; 8]).record().unwrap_err().what, "a message is longer than its file");
        assert_eq!(Cursor::new(&[2, 0, 0, 0, 8, 1]).record().unwrap().required(1), Ok(1));
    }
}
