//! Which manifests are to be read, and what they say: decided without I/O, file by file.
//!
//! A file that changes is read once it is the same at two looks, so that what an editor has half written is no pod. One that
//! can't be read any more, or makes no pod, leaves the pod of its last content in peace: only a file that is gone ends it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::StaticPod;

/// What tells one content of a file from another without reading it: device, inode, size and time of change.
pub(super) type Print = (u64, u64, u64, (i64, i64));

/// The files of a folder.
#[derive(Debug, Default)]
pub(super) struct Shelf(BTreeMap<String, File>);

#[derive(Debug)]
struct File {
    print: Print,
    /// The one that was read last.
    read: Option<Print>,
    pod: Option<StaticPod>,
    fault: Option<String>,
}

impl Shelf {
    /// What was found in the folder. Answers the files to be read now, and whether to look again soon. At the `first` look all are read.
    pub(super) fn found(&mut self, files: BTreeMap<String, Print>, first: bool) -> (Vec<String>, bool) {
        self.0.retain(|name, _| files.contains_key(name));
        let (mut due, mut again) = (Vec::new(), false);
        for (name, print) in files {
            let known = self.0.get(&name);
            let is_still = first || known.is_some_and(|file| file.print == print);
            let file =
                self.0.entry(name.clone()).or_insert(File { print, read: None, pod: None, fault: None });
            file.print = print;
            if file.read == Some(print) {
                continue;
            }
            match is_still {
                true => due.push(name),
                false => again = true,
            }
        }
        (due, again)
    }

    /// What a file that was read says, or why it makes no pod.
    pub(super) fn read(&mut self, name: &str, result: Result<StaticPod, String>) {
        let Some(file) = self.0.get_mut(name) else { return };
        file.read = Some(file.print);
        match result {
            Ok(pod) => (file.pod, file.fault) = (Some(pod), None),
            Err(why) => file.fault = Some(why),
        }
    }

    /// A file can't be read now: it is tried again at the next look.
    pub(super) fn unreadable(&mut self, name: &str, why: String) {
        if let Some(file) = self.0.get_mut(name) {
            file.fault = Some(why);
        }
    }

    /// The files of which no pod is known.
    pub(super) fn without_pods(&self) -> Vec<String> {
        self.0.iter().filter(|(_, file)| file.pod.is_none()).map(|(name, _)| name.clone()).collect()
    }

    /// What a former agent read in a file of which nothing better is known.
    pub(super) fn remember(&mut self, name: &str, pod: StaticPod) {
        let unread = File { print: Print::default(), read: None, pod: None, fault: None };
        self.0.entry(name.to_owned()).or_insert(unread).pod.get_or_insert(pod);
    }

    /// The pods of all files by the keys of their mirrors, and what is wrong with which file.
    pub(super) fn pods(&self) -> (BTreeMap<Bytes, StaticPod>, Vec<(String, String)>) {
        let (mut pods, mut faults) = (BTreeMap::<Bytes, (&str, StaticPod)>::new(), Vec::new());
        for (name, file) in &self.0 {
            if let Some(why) = &file.fault {
                let stays =
                    if file.pod.is_some() { "; the pod of its last valid content goes on" } else { "" };
                faults.push((name.clone(), format!("{why}{stays}")));
            }
            let Some(pod) = &file.pod else { continue };
            match pods.get(&pod.key()) {
                Some((other, _)) => {
                    let why = format!(
                        "the pod {}/{} is that of {other} already: give it another name",
                        pod.mirror.namespace(),
                        pod.mirror.name()
                    );
                    faults.push((name.clone(), why));
                }
                None => _ = pods.insert(pod.key(), (name, pod.clone())),
            }
        }
        (pods.into_iter().map(|(key, (_, pod))| (key, pod)).collect(), faults)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn print(version: i64) -> Print {
        (1, 1, 1, (version, 0))
    }

    fn files(all: &[(&str, i64)]) -> BTreeMap<String, Print> {
        all.iter().map(|(name, version)| ((*name).to_owned(), print(*version))).collect()
    }

    fn pod(name: &str) -> StaticPod {
        let text =
            format!("kind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: a, image: i}}]}}");
        StaticPod::read(text.as_bytes(), Path::new("/m.yaml"), "n1").unwrap()
    }

    #[test]
    fn a_file_is_read_once_it_is_still() {
        let mut shelf = Shelf::default();
        assert_eq!(
            shelf.found(files(&[("a", 1)]), true),
            (vec!["a".into()], false),
            "at once at the first look"
        );
        shelf.read("a", Ok(pod("a")));
        assert_eq!(shelf.found(files(&[("a", 1)]), false), (vec![], false));
        assert_eq!(shelf.found(files(&[("a", 2), ("b", 1)]), false), (vec![], true));
        assert_eq!(
            shelf.found(files(&[("a", 3), ("b", 1)]), false),
            (vec!["b".into()], true),
            "one holds up no other"
        );
        shelf.read("b", Err("is broken".into()));
        assert_eq!(shelf.pods().0.len(), 1);
        assert_eq!(shelf.found(files(&[("a", 3), ("b", 1)]), false), (vec!["a".into()], false));
        assert_eq!(shelf.pods().1, [("b".to_owned(), "is broken".to_owned())]);
    }

    #[test]
    fn what_cannot_be_read_is_tried_again_and_what_was_read_before_goes_on() {
        let mut shelf = Shelf::default();
        // The folder can't be listed.
        shelf.remember("a", pod("a"));
        assert_eq!(shelf.pods().0.len(), 1);
        assert_eq!(shelf.found(files(&[("a", 1), ("b", 1)]), false), (vec![], true));
        assert_eq!(shelf.found(files(&[("a", 1), ("b", 1)]), false), (vec!["a".into(), "b".into()], false));
        shelf.read("b", Err("is broken".into()));
        shelf.unreadable("a", "the disk doesn't answer".into());
        assert_eq!(shelf.without_pods(), ["b"]);
        shelf.remember("b", pod("b"));
        shelf.remember("a", pod("other"));
        let (pods, faults) = shelf.pods();
        let names: Vec<&str> = pods.values().map(|pod| pod.mirror.name()).collect();
        assert_eq!(names, ["a-n1", "b-n1"]);
        assert!(faults.len() == 2 && faults.iter().all(|(_, why)| why.contains("goes on")), "{faults:?}");
        assert_eq!(shelf.found(files(&[("a", 1), ("b", 1)]), false), (vec!["a".into()], false), "once more");
        shelf.read("a", Ok(pod("a")));
        assert_eq!(shelf.found(files(&[("a", 1)]), false), (vec![], false));
        assert!(shelf.pods().1.is_empty() && shelf.pods().0.len() == 1, "b is gone");
    }

    #[test]
    fn a_pod_stays_while_its_file_does_and_no_two_files_make_the_same() {
        let mut shelf = Shelf::default();
        shelf.found(files(&[("a", 1), ("b", 1)]), true);
        shelf.read("a", Ok(pod("x")));
        shelf.read("b", Ok(pod("x")));
        let (pods, faults) = shelf.pods();
        assert_eq!(pods.len(), 1);
        assert!(
            faults[0].0 == "b" && faults[0].1.contains("default/x-n1 is that of a already"),
            "{faults:?}"
        );
        shelf.found(files(&[("a", 2)]), false);
        shelf.found(files(&[("a", 2)]), false);
        shelf.read("a", Err("is broken".into()));
        let (pods, faults) = shelf.pods();
        assert_eq!(pods.len(), 1);
        assert!(faults[0].1.contains("goes on"), "{faults:?}");
        shelf.found(files(&[]), false);
        assert_eq!(shelf.pods().0.len(), 0);
    }
}
