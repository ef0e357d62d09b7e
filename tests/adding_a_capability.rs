//! The patch that docs/ADDING_A_CAPABILITY.md walks through: it applies, it is small, and what it adds works.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How many lines the patch may change in files that were there before.
const CHANGED_LINES_MAX: usize = 7;

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

/// A copy of this tree, as it is in the working directory. What was built of others' crates is used again, and programs go to a place of
/// their own.
struct Copied {
    tree: PathBuf,
    programs: PathBuf,
    built: PathBuf,
    profile: &'static str,
}

impl Copied {
    fn make() -> Copied {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        // target/debug/ordermill
        let program = Path::new(env!("CARGO_BIN_EXE_ordermill"));
        let is_debug = program.parent().unwrap().ends_with("debug");
        let profile = if is_debug { "dev" } else { "release" };
        let built = program.ancestors().nth(2).unwrap().to_owned();
        let place = built.join("adding-a-capability");
        if place.exists() {
            fs::remove_dir_all(&place).unwrap();
        }
        let tree = place.join("tree");
        let listed = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        for file in run(Command::new("git").args(listed).current_dir(root)).split_terminator('\0') {
            let (from, to) = (root.join(file), tree.join(file));
            // One that was deleted is still listed until that is committed.
            if from.exists() {
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(from, to).unwrap();
            }
        }
        // Cargo tells packages apart by name and version, not by place: those of the copy must not take the places of ours.
        let manifest = fs::read_to_string(tree.join("Cargo.toml")).unwrap();
        let renamed = manifest.replacen("\nversion = \"", "\nversion = \"9", 1);
        fs::write(tree.join("Cargo.toml"), renamed).unwrap();
        Copied { tree, programs: place.join("programs"), built, profile }
    }

    fn apply(&self, patch: &str) {
        let file = self.tree.with_extension("patch");
        fs::write(&file, patch).unwrap();
        // The copy is no repository, and the one that it lies in is not meant.
        let mut git = Command::new("git");
        git.env("GIT_CEILING_DIRECTORIES", self.tree.parent().unwrap());
        run(git.args(["apply", "--whitespace=error"]).arg(&file).current_dir(&self.tree));
    }

    /// Runs the test of points that these arguments choose.
    fn test(&self, arguments: &[&str]) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "points::", "--offline", "--profile", self.profile]).args(arguments);
        cargo.env("CARGO_TARGET_DIR", &self.programs).env("CARGO_BUILD_BUILD_DIR", &self.built);
        cargo.env("SQLX_OFFLINE", "true").env("CARGO_INCREMENTAL", "0");
        // What cargo tells this test of itself would make it run others' build scripts again.
        let told = |name: &OsString| {
            ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|own| name.to_string_lossy().starts_with(own))
        };
        env::vars_os().map(|(name, _)| name).filter(told).for_each(|name| {
            cargo.env_remove(name);
        });
        let printed = run(cargo.current_dir(&self.tree));
        let passed =
            printed.lines().filter(|line| line.starts_with("test points::") && line.ends_with("... ok"));
        assert_eq!(passed.count(), 1, "{printed}");
    }
}

#[test]
fn the_patch_adds_files_of_its_own_and_changes_seven_lines_elsewhere() {
    let patch = patch();
    let changed = changed_lines(&patch);
    assert!((1..=CHANGED_LINES_MAX).contains(&changed.len()), "{changed:#?}");
}

#[test]
fn the_patch_applies_and_points_are_earned_and_taken_back_on_a_real_stack() {
    let copied = Copied::make();
    copied.apply(&patch());
    copied.test(&["--package", "ordermill-domain", "--lib"]);
    // With a test of the gateway, so that its program is built; the whole workspace, so that others' crates are built as they were for this.
    copied.test(&["--workspace", "--test", "e2e", "--test", "program"]);
}
