// SPDX-License-Identifier: Apache-2.0
//! The key `imports` of a configuration of containerd, in the text as somebody has written it.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
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
    /// Where the array is in the text.
    array: Option<Range<usize>>,
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
        let (mut imports, mut array) = (Vec::new(), None);
        if let Some(value) = value("imports") {
            let DeValue::Array(elements) = value.get_ref() else { anyhow::bail!("its `imports` is no array") };
            imports = elements.iter().filter_map(|element| element.get_ref().as_str().map(str::to_owned)).collect();
            array = Some(value.span());
        }
        Ok(Self { version, imports, array })
    }

    /// Whether a file of that path is imported already, by what containerd takes for a pattern of it.
    pub(super) fn covers(&self, config: &Path, file: &Path) -> bool {
        self.imports.iter().any(|import| covers(import, config, file))
    }
}

fn covers(import: &str, config: &Path, file: &Path) -> bool {
    let import = config.parent().unwrap_or(Path::new("/")).join(import);
    import == file || import.file_name() == Some("*.toml".as_ref()) && import.parent() == file.parent()
}

/// `text` with a pattern that covers the file replaced by all else that it covers: what containerd is asked about when the
/// question is what there is without that file.
pub(super) fn passing_over(text: &str, top: &Top, config: &Path, file: &Path) -> String {
    let Some(array) = top.array.clone().filter(|_| top.covers(config, file)) else { return text.to_owned() };
    let mut imports = Vec::new();
    for import in &top.imports {
        if !covers(import, config, file) {
            imports.push(import.clone());
        } else if import.ends_with("*.toml") {
            let entries = fs::read_dir(replacement::folder_of(file)).into_iter().flatten().flatten();
            let parts = entries
                .map(|entry| entry.path())
                .filter(|path| path.extension() == Some("toml".as_ref()) && path != file);
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

/// `text` without what [`with`] has added, or as it is if that is not there.
pub(super) fn without(text: &str, file: &str) -> String {
    if let Some(rest) = text.strip_prefix(&line(file)) {
        return rest.to_owned();
    }
    let array = Top::of(text).ok().and_then(|top| top.array);
    let element = format!("\"{file}\", ");
    match array.map(|array| array.start + 1).filter(|at| text[*at..].starts_with(&element)) {
        Some(at) => format!("{}{}", &text[..at], &text[at + element.len()..]),
        None => text.to_owned(),
    }
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
            assert_eq!(without(&changed, FILE), text);
            assert_eq!(without(text, FILE), text);
        }
        // Somebody has added one of theirs.
        let added = format!("imports = [\"{FILE}\", \"mine\"] # tns-shim\n");
        assert_eq!(without(&added, FILE), "imports = [\"mine\"] # tns-shim\n");
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
        for imports in ["'/etc/containerd/conf.d/*.toml'", "'a', 'conf.d/*.toml'", "'conf.d/50-tns-shim.toml'"] {
            assert!(covers(imports), "{imports}");
        }
        for imports in ["", "'/etc/containerd/*.toml'", "'conf.d'", "'conf.d/*'", "'other/*.toml'"] {
            assert!(!covers(imports), "{imports}");
        }
    }
}
