// SPDX-License-Identifier: Apache-2.0
//! Reading a few values out of a JSON text, and changing the text in just those places.
//!
//! The engines' and runtimes' files are never re-serialised: every typed or generic tree loses something of somebody's
//! (unknown keys, large integers, key order). What is found here are slices of the text itself.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

/// What an object holds under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The key is not there.
    Absent,
    /// It is there once, spelt exactly so, and its value is this null, which means the same.
    Null(&'a str),
    /// It is there once, spelt exactly so.
    One(&'a str),
    /// It is there twice, or in another letter case: Go's parser and C parsers disagree about what that means.
    Ambiguous,
}

/// Looks up `keys` in the object at the start of `text`; what follows the object is not read.
///
/// # Errors
/// `text` does not start with a JSON object.
pub fn members<'a, const N: usize>(text: &'a str, keys: [&str; N]) -> serde_json::Result<[Found<'a>; N]> {
    Deserializer::from_str(text).deserialize_map(Members { keys })
}

/// What an object holds under the key of a member that is an object itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below<'a, const N: usize> {
    /// The key is not there, or its value is null.
    Absent,
    /// It is there once, spelt exactly so: what that object holds under some keys.
    Members([Found<'a>; N]),
    /// It is there twice, or in another letter case.
    Ambiguous,
}

/// As [`members`], and what the member `object` holds under the keys `below`, in one reading of the text.
///
/// # Errors
/// `text` does not start with a JSON object, or its member `object` is none.
pub fn members_and_below<'a, const N: usize, const M: usize>(
    text: &'a str,
    keys: [&str; N],
    (object, below): (&str, [&str; M]),
) -> serde_json::Result<([Found<'a>; N], Below<'a, M>)> {
    Deserializer::from_str(text).deserialize_map(MembersAndBelow { keys, object, below })
}

/// The members of the object at the start of `text` whose keys begin with `prefix`, as often and in the order they are there.
///
/// # Errors
/// `text` does not start with a JSON object.
pub fn members_with_prefix<'a>(text: &'a str, prefix: &str) -> serde_json::Result<Vec<(String, &'a str)>> {
    Deserializer::from_str(text).deserialize_map(WithPrefix { prefix })
}

/// The elements of the array at the start of `text`.
///
/// # Errors
/// `text` does not start with a JSON array.
pub fn elements(text: &str) -> serde_json::Result<Vec<&str>> {
    Deserializer::from_str(text).deserialize_seq(Elements)
}

/// A JSON string's value; `None` for any other kind of value.
pub fn string(text: &str) -> Option<Cow<'_, str>> {
    // Borrowed where nothing is escaped.
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(text).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Where `part`, a slice of `whole`, lies in it; in bytes.
pub fn span(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    debug_assert!(start + part.len() <= whole.len(), "not a slice of the whole");
    start..start + part.len()
}

/// A change of a text: these bytes go, `insert` comes in their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// Byte range that is replaced.
    pub remove: Range<usize>,
    /// What replaces it.
    pub insert: Cow<'static, str>,
}

impl Splice {
    /// Appends `element` to the array `array`, a slice of `whole`, whose elements are `elements`.
    pub fn append(whole: &str, array: &str, elements: &[&str], element: &str) -> Self {
        let (at, insert) = match elements.last() {
            Some(last) => (span(whole, last).end, format!(",{element}")),
            None => (span(whole, array).start + 1, element.to_owned()),
        };
        Self { remove: at..at, insert: insert.into() }
    }

    /// Takes element number `index` out of an array, with the comma that belonged to it.
    pub fn take_out(whole: &str, elements: &[&str], index: usize) -> Self {
        let own = span(whole, elements[index]);
        let remove = match (index.checked_sub(1), elements.get(index + 1)) {
            (Some(before), _) => span(whole, elements[before]).end..own.end,
            (None, Some(after)) => own.start..span(whole, after).start,
            (None, None) => own,
        };
        Self { remove, insert: "".into() }
    }

    /// Puts `member` behind the one whose value is `value`, a slice of `whole`.
    pub fn behind(whole: &str, value: &str, member: &str) -> Self {
        let at = span(whole, value).end;
        Self { remove: at..at, insert: format!(",{member}").into() }
    }

    /// Puts `value` in the place of `old`, a slice of `whole`.
    pub fn replace(whole: &str, old: &str, value: impl Into<Cow<'static, str>>) -> Self {
        Self { remove: span(whole, old), insert: value.into() }
    }

    /// The changed text, in the pieces it consists of.
    pub fn pieces<'a>(&'a self, text: &'a [u8]) -> [&'a [u8]; 3] {
        [&text[..self.remove.start], self.insert.as_bytes(), &text[self.remove.end..]]
    }
}

/// The text after several changes, which must not overlap, in the pieces it consists of.
pub fn pieces<'a>(text: &'a [u8], splices: &'a mut [Splice]) -> Vec<&'a [u8]> {
    splices.sort_by_key(|splice| splice.remove.start);
    let mut pieces = Vec::with_capacity(2 * splices.len() + 1);
    let mut at = 0;
    for Splice { remove, insert } in &*splices {
        pieces.extend([&text[at..remove.start], insert.as_bytes()]);
        at = remove.end;
    }
    pieces.push(&text[at..]);
    pieces
}

/// Whether Go's encoding/json takes `key` for `wanted`: without regard to case, and it folds U+017F to s and U+212A to k.
fn folds_to(key: &str, wanted: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(wanted.chars().map(fold))
}

struct Members<'k, const N: usize> {
    keys: [&'k str; N],
}

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Found<'de>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [Found::Absent; N];
        while let Some(key) = map.next_key_seed(Key { keys: &self.keys })? {
            match key {
                Some((index, exact)) => found[index] = found[index].and(exact, map.next_value::<&RawValue>()?.get()),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

impl<'a> Found<'a> {
    /// With one more value under the same key.
    fn and(self, exact: bool, value: &'a str) -> Self {
        match self {
            Self::Absent if exact && value == "null" => Self::Null(value),
            Self::Absent if exact => Self::One(value),
            _ => Self::Ambiguous,
        }
    }
}

struct MembersAndBelow<'k, const N: usize, const M: usize> {
    keys: [&'k str; N],
    object: &'k str,
    below: [&'k str; M],
}

impl<'de, const N: usize, const M: usize> Visitor<'de> for MembersAndBelow<'_, N, M> {
    type Value = ([Found<'de>; N], Below<'de, M>);

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [Found::Absent; N];
        let mut below = None;
        while let Some((is_object, key)) =
            map.next_key_seed(EitherKey(Key { keys: &[self.object] }, Key { keys: &self.keys }))?
        {
            match (is_object, key) {
                (Some((_, true)), _) if below.is_none() => {
                    below = Some(map.next_value_seed(OrNull(Members { keys: self.below }))?);
                }
                (Some(_), _) => {
                    map.next_value::<IgnoredAny>()?;
                    below = Some(Below::Ambiguous);
                }
                (_, Some((index, exact))) => {
                    found[index] = found[index].and(exact, map.next_value::<&RawValue>()?.get());
                }
                (None, None) => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok((found, below.unwrap_or(Below::Absent)))
    }
}

/// The members of an object; null is none.
struct OrNull<'k, const N: usize>(Members<'k, N>);

impl<'de, const N: usize> DeserializeSeed<'de> for OrNull<'_, N> {
    type Value = Below<'de, N>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for OrNull<'_, N> {
    type Value = Below<'de, N>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(Below::Absent)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        self.0.visit_map(map).map(Below::Members)
    }
}

struct WithPrefix<'k> {
    prefix: &'k str,
}

impl<'de> Visitor<'de> for WithPrefix<'_> {
    type Value = Vec<(String, &'de str)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key.starts_with(self.prefix) {
                found.push((key, map.next_value::<&RawValue>()?.get()));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a key where it stands: which of the wanted ones it is, and whether it is spelt exactly so.
struct Key<'k, const N: usize> {
    keys: &'k [&'k str; N],
}

impl<'de, const N: usize> DeserializeSeed<'de> for Key<'_, N> {
    type Value = Option<(usize, bool)>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<const N: usize> Visitor<'_> for Key<'_, N> {
    type Value = Option<(usize, bool)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        let index = self.keys.iter().position(|wanted| folds_to(key, wanted));
        Ok(index.map(|index| (index, key == self.keys[index])))
    }
}

/// A key, compared with two sets.
struct EitherKey<'k, const N: usize, const M: usize>(Key<'k, N>, Key<'k, M>);

impl<'de, const N: usize, const M: usize> DeserializeSeed<'de> for EitherKey<'_, N, M> {
    type Value = (Option<(usize, bool)>, Option<(usize, bool)>);

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<const N: usize, const M: usize> Visitor<'_> for EitherKey<'_, N, M> {
    type Value = (Option<(usize, bool)>, Option<(usize, bool)>);

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok((self.0.visit_str(key)?, self.1.visit_str(key)?))
    }
}

struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::with_capacity(8);
        while let Some(element) = sequence.next_element::<&RawValue>()? {
            elements.push(element.get());
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_members_where_they_stand() {
        let text = r#" {"a": {"linux": 1}, "linux" : {"x":[1,2]}, "n": null} trailing garbage"#;
        let [linux, n, other] = members(text, ["linux", "n", "other"]).unwrap();
        assert_eq!(linux, Found::One(r#"{"x":[1,2]}"#));
        assert_eq!(n, Found::Null("null"));
        assert_eq!(other, Found::Absent);
        let Found::One(linux) = linux else { unreachable!() };
        assert_eq!(&text[span(text, linux)], linux);
    }

    #[test]
    fn what_parsers_read_differently_is_ambiguous() {
        for text in [
            r#"{"linux":{},"linux":{}}"#,
            r#"{"linux":null,"linux":{}}"#,
            r#"{"Linux":{}}"#,
            r#"{"linux":{},"LINUX":{}}"#,
            r#"{"LINUX":null}"#,
        ] {
            assert_eq!(members(text, ["linux"]).unwrap(), [Found::Ambiguous], "{text}");
        }
        assert_eq!(members("{\"name\u{17f}paces\":[]}", ["namespaces"]).unwrap(), [Found::Ambiguous]);
    }

    #[test]
    fn members_of_a_member_are_found_in_the_same_reading() {
        let read = |text| members_and_below(text, ["a"], ("linux", ["x", "y"]));
        let text = r#"{"a": 1, "linux": {"x": [2], "z": {"y": 3}}, "x": 4} rest"#;
        assert_eq!(read(text).unwrap(), ([Found::One("1")], Below::Members([Found::One("[2]"), Found::Absent])));
        for (text, below) in [
            ("{}", Below::Absent),
            (r#"{"linux":null}"#, Below::Absent),
            (r#"{"linux":{}}"#, Below::Members([Found::Absent; 2])),
            (r#"{"linux":{"x":1,"X":2}}"#, Below::Members([Found::Ambiguous, Found::Absent])),
            (r#"{"linux":{"x":null}}"#, Below::Members([Found::Null("null"), Found::Absent])),
            (r#"{"linux":{},"linux":7}"#, Below::Ambiguous),
            (r#"{"linux":null,"linux":{}}"#, Below::Ambiguous),
            (r#"{"LINUX":{}}"#, Below::Ambiguous),
            (r#"{"LINUX":7,"linux":{}}"#, Below::Ambiguous),
        ] {
            assert_eq!(read(text).unwrap(), ([Found::Absent], below), "{text}");
        }
        assert_eq!(read(r#"{"A":1,"linux":{}}"#).unwrap().0, [Found::Ambiguous]);
        for wrong in ["", "[]", r#"{"linux":[]}"#, r#"{"linux":7}"#, r#"{"linux":{}"#, r#"{"linux":{"x":}}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_of_another_type_is_an_error_that_says_which_belongs_there() {
        for text in ["[]", "7", "\"linux\""] {
            assert!(members(text, ["linux"]).unwrap_err().to_string().contains("expected an object"), "{text}");
            assert!(members_with_prefix(text, "l").unwrap_err().to_string().contains("expected an object"), "{text}");
        }
        for text in ["7", r#"{"type":"time"}"#, "{}"] {
            assert!(elements(text).unwrap_err().to_string().contains("expected an array"), "{text}");
        }
    }

    #[test]
    fn an_escaped_key_is_the_same_key() {
        assert_eq!(members(r#"{"\u006cinux":7}"#, ["linux"]).unwrap(), [Found::One("7")]);
    }

    #[test]
    fn values_that_trees_cannot_hold_are_skipped() {
        let text = r#"{"big":123456789012345678901234567890,"huge":1e400,"lone":"\ud800","linux":{}}"#;
        assert_eq!(members(text, ["linux"]).unwrap(), [Found::One("{}")]);
    }

    #[test]
    fn append_and_take_out_touch_nothing_else() {
        let apply = |text: &str, splice: Splice| String::from_utf8(splice.pieces(text.as_bytes()).concat()).unwrap();
        for (text, appended) in [("[ ]", "[9 ]"), ("[1]", "[1,9]"), ("[ 1 , 2 ]", "[ 1 , 2,9 ]")] {
            assert_eq!(apply(text, Splice::append(text, text, &elements(text).unwrap(), "9")), appended);
        }
        for (text, index, left) in
            [("[1]", 0, "[]"), ("[ 1 , 2 ]", 0, "[ 2 ]"), ("[ 1 , 2 ]", 1, "[ 1 ]"), ("[1, 2, 3]", 1, "[1, 3]")]
        {
            assert_eq!(apply(text, Splice::take_out(text, &elements(text).unwrap(), index)), left);
        }
    }

    #[test]
    fn several_changes_are_made_at_once() {
        let text = r#"{"a": 1, "b": null}"#;
        let [Found::One(a), Found::Null(b)] = members(text, ["a", "b"]).unwrap() else { unreachable!() };
        let mut splices =
            [Splice::replace(text, b, "[]"), Splice::behind(text, b, "\"c\":3"), Splice::replace(text, a, "2")];
        assert_eq!(pieces(text.as_bytes(), &mut splices).concat(), br#"{"a": 2, "b": [],"c":3}"#);
        assert_eq!(pieces(b"x", &mut []).concat(), b"x");
    }

    #[test]
    fn members_with_a_prefix_are_found_as_often_as_they_are_there() {
        let text = r#"{"o.x": "1", "p": {"o.y": 2}, "o\u002ex": "3", "o.": 1e400} rest"#;
        let found = members_with_prefix(text, "o.").unwrap();
        assert_eq!(found, [("o.x".into(), "\"1\""), ("o.x".into(), "\"3\""), ("o.".into(), "1e400")]);
    }

    #[test]
    fn strings_are_unescaped_and_other_values_are_none() {
        assert_eq!(string(r#""time""#).unwrap(), "time");
        assert_eq!(string(r#""t\u0069me""#).unwrap(), "time");
        assert_eq!(string("7"), None);
    }
}
