// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/app"
)

// TestDocuments holds what the pages say against what there is: commands and
// their flags, make targets, settings, files, tests and packages.
func TestDocuments(t *testing.T) {
	t.Parallel()
	pages := map[string]string{}
	for _, pattern := range []string{"../*.md", "*.md", "decisions/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			pages[f] = read(t, f)
		}
	}
	if len(pages) < 15 {
		t.Fatalf("got %d pages, want all", len(pages))
	}
	help, targets, tests := helps(t), makeTargets(t), testNames(t)
	for name, text := range pages {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			commands(t, text, help)
			for _, m := range regexp.MustCompile("(?m)(?:^|`)make ([a-z]+)").FindAllStringSubmatch(text, -1) {
				if !slices.Contains(targets, m[1]) {
					t.Errorf("there is no target for make %s", m[1])
				}
			}
			for _, s := range regexp.MustCompile(`\b(?:MEDIRECORD|CORESDK)_[A-Z_]+\b`).FindAllString(text, -1) {
				if !isSetting(s) {
					t.Errorf("there is no setting %s", s)
				}
			}
			for _, m := range regexp.MustCompile("`([^`\n ]+)`").FindAllStringSubmatch(text, -1) {
				if ours(m[1]) && !exists(m[1]) {
					t.Errorf("there is no file %s", m[1])
				}
				if strings.HasPrefix(m[1], "Test") && !slices.Contains(tests, m[1]) {
					t.Errorf("there is no test %s", m[1])
				}
			}
		})
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// helps returns the help of each command, by its words. It is golden beside
// the commands, so that it is what they print.
func helps(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	files, err := filepath.Glob("../cmd/medirecord/testdata/help/medirecord*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("got %d texts of help (%v), want those of all commands", len(files), err)
	}
	for _, f := range files {
		words := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "medirecord"), ".txt")
		out[strings.TrimPrefix(strings.ReplaceAll(words, "_", " "), " ")] = read(t, f)
	}
	return out
}

var (
	block   = regexp.MustCompile("(?ms)^```(?:sh|console)\n(.*?)^```$")
	calling = regexp.MustCompile(`(?m)(?:^|[\s(])(?:bin/)?medirecord ([^\n|;&)]*)`)
	flag    = regexp.MustCompile(`--([a-z-]+)`)
)

// commands checks every call of the program in the page's shell.
func commands(t *testing.T, text string, help map[string]string) {
	t.Helper()
	var shell strings.Builder
	for _, m := range block.FindAllStringSubmatch(text, -1) {
		shell.WriteString(strings.ReplaceAll(m[1], "\\\n", " "))
	}
	for _, m := range calling.FindAllStringSubmatch(shell.String(), -1) {
		words := strings.Fields(m[1])
		if len(words) == 0 {
			continue
		}
		command := words[0]
		if len(words) > 1 && help[command+" "+words[1]] != "" {
			command += " " + words[1]
		}
		said, known := help[command]
		if !known {
			t.Errorf("there is no command medirecord %s", command)
			continue
		}
		for _, f := range flag.FindAllStringSubmatch(m[1], -1) {
			if !regexp.MustCompile(`(?m)^ .*--(\[no-\])?` + f[1] + `(\W|$)`).MatchString(said) {
				t.Errorf("medirecord %s has no flag --%s", command, f[1])
			}
		}
	}
}

func makeTargets(t *testing.T) (out []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^([a-z]+):`).FindAllStringSubmatch(read(t, "../Makefile"), -1) {
		out = append(out, m[1])
	}
	return out
}

// isSetting asks the program: it refuses names of ours that it does not know.
func isSetting(name string) bool {
	if strings.HasPrefix(name, "MEDIRECORD_") {
		_, err := app.LoadConfig([]string{name + "="})
		return err == nil
	}
	return name == "CORESDK_JWKS_URL" || slices.ContainsFunc(new(app.Config).Settings(), func(s app.Setting) bool { return s.Env == name })
}

// ours says whether the words name a file of this repository.
func ours(words string) bool {
	first, _, deep := strings.Cut(words, "/")
	top := slices.Contains([]string{"bench", "cmd", "coresdk", "docs", "examples", "internal", "policy", "proto", "scripts", "tools"}, first)
	return deep && top || regexp.MustCompile(`^[A-Z]+\.md$`).MatchString(words)
}

func exists(name string) bool {
	found, err := filepath.Glob(filepath.Join("..", name))
	return err == nil && len(found) > 0 || strings.HasPrefix(filepath.Base(name), "x.") // an example
}

// testNames lists the tests of the module.
func testNames(t *testing.T) (out []string) {
	t.Helper()
	set := token.NewFileSet()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok {
				out = append(out, fn.Name.Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestEverySettingIsExplained: the table of docs/operate.md is the list that
// `medirecord config check` prints, in its order.
func TestEverySettingIsExplained(t *testing.T) {
	t.Parallel()
	_, text, _ := strings.Cut(read(t, "operate.md"), "\n| environment | file |")
	var got, want []string
	for _, m := range regexp.MustCompile("(?m)^\\| (?:`([A-Z_]+)`)? ?\\| `([a-z_]+)` \\| [^|]{3,} \\| [^|]{3,} \\|$").FindAllStringSubmatch(text, -1) {
		got = append(got, m[1]+" "+m[2])
	}
	for _, s := range new(app.Config).Settings() {
		want = append(want, s.Env+" "+s.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestEveryPackageIsInThePicture: ARCHITECTURE.md names each of our packages,
// and stays short.
func TestEveryPackageIsInThePicture(t *testing.T) {
	t.Parallel()
	text := read(t, "../ARCHITECTURE.md")
	if n := strings.Count(text, "\n"); n > 150 {
		t.Errorf("it has %d lines, want at most 150", n)
	}
	dirs, err := filepath.Glob("../internal/*")
	if err != nil || len(dirs) < 15 {
		t.Fatalf("got %d packages (%v), want all", len(dirs), err)
	}
	for _, d := range dirs {
		if name := "`internal/" + filepath.Base(d) + "`"; !strings.Contains(text, name) {
			t.Errorf("it does not name %s", name)
		}
	}
}

// TestADecisionIsOneScreen: each says the same four things, and is short.
func TestADecisionIsOneScreen(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("decisions/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("got no decisions (%v)", err)
	}
	before := ""
	for _, f := range files {
		text := read(t, f)
		number := filepath.Base(f)[:4]
		if !strings.HasPrefix(text, "# "+number+" ") || number == before {
			t.Errorf("%s: want a number of its own, in its name and its title", f)
		}
		before = number
		for _, part := range []string{"What we saw.", "What we chose.", "What we gave up.", "What would change our mind."} {
			if !strings.Contains(text, "\n**"+part+"**") {
				t.Errorf("%s does not say: %s", f, part)
			}
		}
		if n := strings.Count(text, "\n"); n > 40 {
			t.Errorf("%s has %d lines, want one screen", f, n)
		}
	}
}
