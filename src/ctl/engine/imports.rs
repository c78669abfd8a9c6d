// SPDX-License-Identifier: Apache-2.0
//! The key `imports` of a configuration of containerd, in the text as somebody has written it.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::replacement;

/// What a line that was put there for the import ends with.
const REMARK: &str = " # tns-shim";

/// What a configuration says at its top.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Top {
    /// 1 where it does not say.
    pub version: i64,
    pub imports: Vec<String>,
    /// Where the array is in the text, and where its elements are.
    array: Option<Range<usize>>,
    elements: Vec<Range<usize>>,
}

impl Top {
    pub(super) fn of(text: &str) -> Result<Self> {
        let table = DeTable::parse(text).context("it is no valid TOML")?.into_inner();
        let value = |key: &str| table.iter().find(|(found, _)| found.get_ref() == key).map(|(_, value)| value);
        let version = match value("version").map(Spanned::get_ref) {
            None => 1,
            Some(DeValue::Integer(number)) => number.as_str().parse().context("its version is no number")?,
            Some(_) => anyhow::bail!("its version is no number"),
        };
        let mut top = Self { version, ..Self::default() };
        if let Some(value) = value("imports") {
            let DeValue::Array(elements) = value.get_ref() else { anyhow::bail!("its `imports` is no array") };
            for element in elements {
                let import = element.get_ref().as_str().context("its `imports` has something else than text")?;
                top.imports.push(import.to_owned());
                top.elements.push(element.span());
            }
            top.array = Some(value.span());
        }
        Ok(top)
    }

    /// Whether a file of that path is imported already, by what containerd takes for a pattern of it.
    pub(super) fn covers(&self, config: &Path, file: &Path) -> bool {
        self.imports.iter().any(|import| covers(import, config, file))
    }

    /// Whether it is imported by its own name, so that containerd does not start where it is not there.
    pub(super) fn names(&self, config: &Path, file: &Path) -> bool {
        self.imports.iter().any(|import| !is_pattern(import) && absolute(import, config) == file)
    }

    /// The first import by a name that is not there. `containerd config dump` takes no notice of it, and prints what it had read
    /// before; containerd itself does not start.
    pub(super) fn missing(&self, config: &Path) -> Option<PathBuf> {
        let named = self.imports.iter().filter(|import| !is_pattern(import));
        named.map(|import| absolute(import, config)).find(|file| !file.exists())
    }
}

/// As containerd has it.
fn is_pattern(import: &str) -> bool {
    import.contains('*')
}

fn absolute(import: &str, config: &Path) -> PathBuf {
    config.parent().unwrap_or(Path::new("/")).join(import)
}

fn covers(import: &str, config: &Path, file: &Path) -> bool {
    let path = absolute(import, config);
    if !is_pattern(import) {
        return path == file;
    }
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let (Some(pattern), Some(name)) = (name(&path), name(file)) else { return false };
    path.parent() == file.parent() && matches(&pattern, &name)
}

/// Whether a pattern in which only `*` is special is one of that name.
fn matches(pattern: &str, name: &str) -> bool {
    if pattern.contains(['?', '[', '\\']) {
        return false;
    }
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = name.split_once(part) else { return false };
        name = after;
    }
    name.ends_with(last)
}

/// `text` with a pattern that covers the file replaced by all else that it covers: what containerd is asked about when the
/// question is what there is without that file.
pub(super) fn passing_over(text: &str, top: &Top, config: &Path, file: &Path) -> String {
    let Some(array) = top.array.clone().filter(|_| top.covers(config, file)) else { return text.to_owned() };
    let mut imports = Vec::new();
    for import in &top.imports {
        if !covers(import, config, file) {
            imports.push(import.clone());
        } else if is_pattern(import) {
            let entries = fs::read_dir(replacement::folder_of(file)).into_iter().flatten().flatten();
            let parts = entries.map(|entry| entry.path()).filter(|path| covers(import, config, path) && path != file);
            let mut parts: Vec<_> = parts.filter_map(|path| path.to_str().map(str::to_owned)).collect();
            parts.sort();
            imports.extend(parts);
        }
    }
    let list = imports
        .iter()
        .map(|import| serde_json::Value::from(import.as_str()).to_string())
        .collect::<Vec<_>>()
        .join(", ");
    format!("{}[{list}]{}", &text[..array.start], &text[array.end..])
}

/// `text` with an import of that file; `top` is its own.
pub(super) fn with(text: &str, top: &Top, file: &str) -> String {
    match &top.array {
        // Behind the bracket.
        Some(array) => {
            let (before, after) = text.split_at(array.start + 1);
            format!("{before}\"{file}\", {after}")
        }
        None => format!("{}{text}", line(file)),
    }
}

/// `text` without what [`with`] has added, wherever it stands by now and however somebody's tool has quoted it, or as it is if
/// that is not there.
///
/// # Errors
/// It is no configuration, or the import cannot be taken out without touching what stands around it.
pub(super) fn without(text: &str, file: &str) -> Result<String> {
    if let Some(rest) = text.strip_prefix(&line(file)) {
        return Ok(rest.to_owned());
    }
    let top = Top::of(text)?;
    let mut left = text.to_owned();
    for (_, element) in top.imports.iter().zip(&top.elements).rev().filter(|(import, _)| *import == file) {
        left.replace_range(with_comma(&left, element), "");
    }
    let wanted: Vec<_> = top.imports.into_iter().filter(|import| import != file).collect();
    ensure!(
        Top::of(&left).is_ok_and(|top| top.imports == wanted),
        "its `imports` was written anew since tnsctl has added \"{file}\" there: take that out by hand, and try again"
    );
    Ok(left)
}

/// An element of an array, and the comma that goes with it: the one behind it, or that before the last one.
fn with_comma(text: &str, element: &Range<usize>) -> Range<usize> {
    let (before, after) = (&text[..element.start], &text[element.end..]);
    if let Some(rest) = after.trim_start().strip_prefix(',') {
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        return element.start..text.len() - rest.len();
    }
    let start = before.trim_end().strip_suffix(',').map_or(element.start, str::len);
    start..element.end
}

fn line(file: &str) -> String {
    format!("imports = [\"{file}\"]{REMARK}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/etc/containerd/conf.d/50-tns-shim.toml";

    #[test]
    fn an_import_is_added_and_goes_again() {
        for (text, expected) in [
            ("version = 2\n", format!("imports = [\"{FILE}\"] # tns-shim\nversion = 2\n")),
            ("", format!("imports = [\"{FILE}\"] # tns-shim\n")),
            ("imports=[]", format!("imports=[\"{FILE}\", ]")),
            ("a = 1\nimports = ['b'] # c\n", format!("a = 1\nimports = [\"{FILE}\", 'b'] # c\n")),
            (
                "imports = [\r\n  # one\r\n  \"b\",\r\n]\r\n",
                format!("imports = [\"{FILE}\", \r\n  # one\r\n  \"b\",\r\n]\r\n"),
            ),
            ("[debug]\n  imports = []\n", format!("imports = [\"{FILE}\"] # tns-shim\n[debug]\n  imports = []\n")),
            ("note = \"imports = []\"\n", format!("imports = [\"{FILE}\"] # tns-shim\nnote = \"imports = []\"\n")),
        ] {
            let changed = with(text, &Top::of(text).unwrap(), FILE);
            assert_eq!(changed, expected);
            assert_eq!(Top::of(&changed).unwrap().imports[0], FILE);
            assert_eq!(without(&changed, FILE).unwrap(), text);
            assert_eq!(without(text, FILE).unwrap(), text);
        }
    }

    #[test]
    fn an_import_goes_however_somebody_has_written_it_by_now() {
        for (now, left) in [
            // Somebody has added one of theirs.
            ("imports = [\"F\", \"mine\"] # tns-shim\n", "imports = [\"mine\"] # tns-shim\n"),
            ("imports = [\"mine\", \"F\"]\n", "imports = [\"mine\"]\n"),
            ("imports = [\"a\", \"F\", \"b\"]\n", "imports = [\"a\", \"b\"]\n"),
            ("imports = ['a','F','b']\n", "imports = ['a','b']\n"),
            // A tool has written it anew, without the remark.
            ("imports = [\"F\"]\n", "imports = []\n"),
            ("imports = ['F']\n", "imports = []\n"),
            ("version = 3\nimports = ['''F''']", "version = 3\nimports = []"),
            ("imports = [\n  'a',\n  'F',\n]\n", "imports = [\n  'a',\n  \n]\n"),
            ("imports = [\n  'a',\n  'F'\n]\n", "imports = [\n  'a'\n]\n"),
            ("imports = ['F', 'a', 'F']", "imports = ['a']"),
            ("note = 'F'\nimports = ['conf.d/*.toml']", "note = 'F'\nimports = ['conf.d/*.toml']"),
        ] {
            let [now, left] = [now, left].map(|text| text.replace('F', FILE));
            assert_eq!(without(&now, FILE).unwrap(), left, "{now}");
        }
        // Its comma is not to be found behind the remark.
        let error = without(&format!("imports = [ '{FILE}' # mine\n , 'a']"), FILE).unwrap_err();
        assert!(format!("{error:#}").contains("take that out by hand"), "{error:#}");
    }

    #[test]
    fn what_is_named_has_to_be_there_and_what_a_pattern_covers_has_not() {
        let folder = tempfile::tempdir().unwrap();
        let (config, there) = (folder.path().join("config.toml"), folder.path().join("there.toml"));
        fs::write(&there, "").unwrap();
        let missing = |imports: &str| Top::of(&format!("imports = [{imports}]")).unwrap().missing(&config);
        assert_eq!(missing(&format!("'there.toml', '{}', 'gone/*.toml'", there.display())), None);
        assert_eq!(missing("'there.toml', 'gone.toml'"), Some(folder.path().join("gone.toml")));
        assert_eq!(missing("'/gone/x.toml'"), Some(PathBuf::from("/gone/x.toml")));
        let names = |imports: &str| Top::of(&format!("imports = [{imports}]")).unwrap().names(&config, &there);
        assert!(names("'there.toml'") && names(&format!("'{}'", there.display())));
        assert!(!names("'*.toml'") && !names("'other.toml'"));
    }

    #[test]
    fn the_top_is_what_the_text_says() {
        let of = |text: &str| Top::of(text).map(|top| (top.version, top.imports)).map_err(|error| format!("{error:#}"));
        assert_eq!(of("version = 3\nimports = ['a', \"b\"]"), Ok((3, vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(of("[plugins]"), Ok((1, vec![])));
        assert!(of("version = '2'").unwrap_err().contains("no number"));
        assert!(of("imports = 'a'").unwrap_err().contains("no array"));
        assert!(of("[broken").unwrap_err().contains("no valid TOML"));
    }

    #[test]
    fn a_question_about_all_else_passes_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for name in ["50-tns-shim.toml", "b.toml", "a.toml", "c.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let (config, file) = (folder.path().join("config.toml"), folder.path().join("50-tns-shim.toml"));
        let question = |text: &str| passing_over(text, &Top::of(text).unwrap(), &config, &file);
        let (a, b) = (at("a.toml"), at("b.toml"));
        assert_eq!(
            question("imports = ['x', '*.toml', \"y\"] # z\n"),
            format!("imports = [\"x\", \"{a}\", \"{b}\", \"y\"] # z\n")
        );
        assert_eq!(question("imports = ['50-tns-shim.toml']"), "imports = []");
        for text in ["version = 2\n", "imports = ['conf.d/*.toml']\n"] {
            assert_eq!(question(text), text);
        }
    }

    #[test]
    fn a_pattern_of_somebody_s_covers_the_file() {
        let covers = |imports: &str| {
            let top = Top::of(&format!("imports = [{imports}]")).unwrap();
            top.covers(Path::new("/etc/containerd/config.toml"), Path::new(FILE))
        };
        for imports in [
            "'/etc/containerd/conf.d/*.toml'",
            "'a', 'conf.d/*.toml'",
            "'conf.d/50-tns-shim.toml'",
            "'conf.d/*'",
            "'conf.d/50-*'",
            "'conf.d/*tns*.toml'",
        ] {
            assert!(covers(imports), "{imports}");
        }
        for imports in [
            "",
            "'/etc/containerd/*.toml'",
            "'conf.d'",
            "'conf.d/60*'",
            "'conf.d/*tns*.tom'",
            "'other/*.toml'",
            "'conf.d/5?-*'",
        ] {
            assert!(!covers(imports), "{imports}");
        }
    }
}
