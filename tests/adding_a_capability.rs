//! The patch that docs/ADDING_A_CAPABILITY.md walks through: it applies, it is small, and what it adds works.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How many lines the patch may change in files that were there before.
const CHANGED_LINES_MAX: usize = 6;

/// The document's patch: its blocks of `diff`, one after the other.
fn patch() -> String {
    let page = include_str!("../docs/ADDING_A_CAPABILITY.md");
    page.split("\n```diff\n")
        .skip(1)
        .map(|rest| rest.split_inclusive("\n```\n").next().unwrap())
        .map(|block| block.strip_suffix("```\n").unwrap())
        .collect()
}

/// Runs a command to its end and answers what it has printed.
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let [printed, told] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{printed}\n{told}", output.status);
    printed
}

/// The lines that a patch adds to files that were there before, or takes from them.
fn changed_lines(patch: &str) -> Vec<&str> {
    let old_files = patch.split("diff --git ").filter(|file| !file.contains("\n--- /dev/null\n"));
    let hunks = old_files.flat_map(|file| file.lines().skip_while(|line| !line.starts_with("@@")));
    hunks.filter(|line| line.starts_with(['+', '-'])).collect()
}

/// Puts links to what was built of others' crates into a new target directory. What is built anew takes the place of a link and leaves
/// the file alone. Crates of the workspace and programs are built from the copy.
fn link_built(built: &Path, target: &Path) {
    for part in ["deps", "build", ".fingerprint"] {
        let is_others = |path: &PathBuf| {
            let is_program = part == "deps" && path.extension().is_none();
            !is_program && !path.file_name().unwrap().to_string_lossy().contains("ordermill")
        };
        let entries = fs::read_dir(built.join(part)).unwrap().map(|entry| entry.unwrap().path());
        let to = target.join(part);
        fs::create_dir_all(&to).unwrap();
        for some in entries.filter(is_others).collect::<Vec<_>>().chunks(500) {
            run(Command::new("cp").arg("-al").arg("--target-directory").arg(&to).args(some));
        }
    }
}

/// A copy of this tree, as it is in the working directory, under `target`, with what was built of others' crates.
struct Copied {
    tree: PathBuf,
    target: PathBuf,
    profile: String,
}

impl Copied {
    fn make() -> Copied {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        // target/debug/ordermill
        let built = Path::new(env!("CARGO_BIN_EXE_ordermill")).parent().unwrap();
        let profile = built.file_name().unwrap().to_str().unwrap().to_owned();
        let place = built.parent().unwrap().join("adding-a-capability");
        if place.exists() {
            fs::remove_dir_all(&place).unwrap();
        }
        let (tree, target) = (place.join("tree"), place.join("target"));
        let listed = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        for file in run(Command::new("git").args(listed).current_dir(root)).split_terminator('\0') {
            let (from, to) = (root.join(file), tree.join(file));
            // One that was deleted is still listed until that is committed.
            if from.exists() {
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(from, to).unwrap();
            }
        }
        link_built(built, &target.join(&profile));
        Copied { tree, target, profile }
    }

    fn apply(&self, patch: &str) {
        let file = self.tree.with_extension("patch");
        fs::write(&file, patch).unwrap();
        // The copy is no repository, and the one that it lies in is not meant.
        let ceiling = self.tree.parent().unwrap();
        let mut git = Command::new("git");
        git.env("GIT_CEILING_DIRECTORIES", ceiling).args(["apply", "--whitespace=error"]).arg(&file);
        run(git.current_dir(&self.tree));
    }

    fn cargo(&self, arguments: &[&str]) -> String {
        let profile = if self.profile == "debug" { "dev" } else { &self.profile };
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(&arguments[..1])
            .args(["--offline", "--locked", "--profile", profile])
            .args(&arguments[1..]);
        cargo.env("CARGO_TARGET_DIR", &self.target).env("SQLX_OFFLINE", "true");
        run(cargo.current_dir(&self.tree))
    }

    /// Runs the tests whose names begin with `points::`.
    fn test(&self, arguments: &[&str]) {
        let printed = self.cargo(&[&["test"], arguments, &["points::"]].concat());
        let passed =
            printed.lines().filter(|line| line.starts_with("test points::") && line.ends_with("... ok"));
        assert_eq!(passed.count(), 1, "{printed}");
    }
}

#[test]
fn the_patch_adds_files_of_its_own_and_changes_six_lines_elsewhere() {
    let patch = patch();
    let changed = changed_lines(&patch);
    assert!((1..=CHANGED_LINES_MAX).contains(&changed.len()), "{changed:#?}");
}

#[test]
fn the_patch_applies_and_points_are_earned_and_taken_back_on_a_real_stack() {
    let copied = Copied::make();
    copied.apply(&patch());
    copied.test(&["--package", "ordermill-domain", "--lib"]);
    copied.cargo(&["build", "--workspace", "--bin", "ordermill-gateway", "--test", "e2e"]);
    copied.test(&["--workspace", "--test", "e2e"]);
}
