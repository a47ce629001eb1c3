// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	policyfile "github.com/medirecord/medirecord/policy"
)

// FileName is the policy file in a policy directory.
const FileName = "medirecord.rego"

// builtIn names a policy of this binary where a path would stand:
// builtin:hospital.
const builtIn = "builtin:"

// Source is a policy file and the cases it must pass. One without cases is held
// against the compiled rules only.
type Source struct {
	Name string // for messages
	Rego []byte
	// Base is the text of medirecord.rego where the file builds on it: its
	// package then is medirecord.<name>, and it decides by data.medirecord.
	Base  []byte
	Cases []Case
}

// Embedded returns the policy of this binary, with its cases.
func Embedded() (Source, error) { return Read("") }

// IsBuiltIn says whether the path names a policy of this binary, which never
// changes.
func IsBuiltIn(path string) bool { return path == "" || strings.HasPrefix(path, builtIn) }

// Read returns the policy at the path: a .rego file, or a directory with
// medirecord.rego in it. Its cases are the files cases/*.yaml beside it, if
// there are any. An empty path is the embedded policy, builtin:hospital the
// embedded hospital.rego.
//
// A file whose package is medirecord.<name> builds on the medirecord.rego
// beside it, which must be there, and its cases are cases/<name>/*.yaml.
func Read(path string) (Source, error) {
	t, err := readPath(path)
	if err != nil {
		return Source{}, err
	}
	return t.source()
}

// ReadWithCases is Read with the cases of another folder: its *.yaml files.
// It reports a folder without any: nothing tried is not the same as all passed.
func ReadWithCases(path, cases string) (Source, error) {
	t, err := readPath(path)
	if err != nil {
		return Source{}, err
	}
	if cases == "" {
		return t.source()
	}
	if t.cases, err = readCases(os.DirFS(cases), "."); err != nil {
		return Source{}, fmt.Errorf("reading the cases in %s: %w", cases, err)
	}
	if len(t.cases) == 0 {
		return Source{}, fmt.Errorf("there are no cases (*.yaml) in %s", cases)
	}
	return t.source()
}

// texts is a policy as it lies on disk, not yet understood.
type texts struct {
	name       string
	rego, base []byte
	cases      []caseText
}

type caseText struct {
	name string
	text []byte
}

func readPath(where string) (texts, error) {
	if IsBuiltIn(where) {
		name := FileName
		if where != "" {
			name = strings.TrimPrefix(where, builtIn) + ".rego"
		}
		t, err := readTexts(policyfile.Files, name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
			return texts{}, fmt.Errorf("there is no policy %s: the built-in ones are builtin:medirecord and builtin:hospital", where)
		}
		return t, err
	}
	dir, name := filepath.Split(filepath.Clean(where))
	info, err := os.Stat(where)
	if err != nil {
		return texts{}, fmt.Errorf("reading the policy file: %w", err)
	}
	if info.IsDir() {
		dir, name = where, FileName
	}
	if dir == "" {
		dir = "."
	}
	return readTexts(os.DirFS(dir), name)
}

// buildsOn finds the package of a file that builds on another.
var buildsOn = regexp.MustCompile(`(?m)^package medirecord\.([a-z_]+)\s*$`)

func readTexts(fsys fs.FS, name string) (texts, error) {
	rego, err := readFile(fsys, name)
	if err != nil {
		return texts{}, fmt.Errorf("reading the policy file: %w", err)
	}
	t := texts{name: name, rego: rego}
	folder := "cases"
	if own := buildsOn.FindSubmatch(rego); own != nil {
		folder = path.Join(folder, string(own[1]))
		if t.base, err = readFile(fsys, FileName); err != nil {
			return texts{}, fmt.Errorf("%s builds on %s, which must lie beside it: %w", name, FileName, err)
		}
	}
	if t.cases, err = readCases(fsys, folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return texts{}, fmt.Errorf("reading the policy cases: %w", err)
	}
	return t, nil
}

func readCases(fsys fs.FS, folder string) ([]caseText, error) {
	entries, err := fs.ReadDir(fsys, folder)
	if err != nil {
		return nil, err
	}
	var cases []caseText
	for _, entry := range entries { // sorted by name
		ext := path.Ext(entry.Name())
		if entry.IsDir() || strings.HasPrefix(entry.Name(), ".") || ext != ".yaml" && ext != ".yml" {
			continue
		}
		name := path.Join(folder, entry.Name())
		text, err := readFile(fsys, name)
		if errors.Is(err, fs.ErrNotExist) { // gone since it was listed: not "no cases"
			return nil, fmt.Errorf("%s was taken away while it was read", name)
		}
		if err != nil {
			return nil, err
		}
		cases = append(cases, caseText{name, text})
	}
	return cases, nil
}

func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return text, nil
}

// source understands the cases.
func (t *texts) source() (Source, error) {
	src := Source{Name: t.name, Rego: t.rego, Base: t.base}
	for _, c := range t.cases {
		cases, err := parseCases(c.name, c.text)
		if err != nil {
			return Source{}, err
		}
		src.Cases = append(src.Cases, cases...)
	}
	return src, nil
}

// fingerprint tells two states of the files apart.
func (t *texts) fingerprint() [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%d\n", len(t.rego))
	h.Write(t.rego)
	fmt.Fprintf(h, "%d\n", len(t.base))
	h.Write(t.base)
	for _, c := range t.cases {
		fmt.Fprintf(h, "%q %d\n", c.name, len(c.text))
		h.Write(c.text)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
