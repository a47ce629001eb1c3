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
	"strings"

	policyfile "github.com/medirecord/medirecord/policy"
)

// FileName is the policy file in a policy directory.
const FileName = "medirecord.rego"

// Source is a policy file and the cases it must pass. One without cases is held
// against the compiled rules only.
type Source struct {
	Name  string // for messages
	Rego  []byte
	Cases []Case
}

// Embedded returns the policy of this binary, with its cases.
func Embedded() (Source, error) {
	t, err := readTexts(policyfile.Files, FileName)
	if err != nil {
		return Source{}, fmt.Errorf("reading the embedded policy: %w", err)
	}
	return t.source()
}

// Read returns the policy at the path: a .rego file, or a directory with
// medirecord.rego in it. Its cases are the files cases/*.yaml beside it, if
// there are any. An empty path is the embedded policy.
func Read(path string) (Source, error) {
	t, err := readPath(path)
	if err != nil {
		return Source{}, err
	}
	return t.source()
}

// texts is a policy as it lies on disk, not yet understood.
type texts struct {
	name  string
	rego  []byte
	cases []caseText
}

type caseText struct {
	name string
	text []byte
}

func readPath(where string) (texts, error) {
	if where == "" {
		return readTexts(policyfile.Files, FileName)
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

func readTexts(fsys fs.FS, name string) (texts, error) {
	rego, err := readFile(fsys, name)
	if err != nil {
		return texts{}, fmt.Errorf("reading the policy file: %w", err)
	}
	t := texts{name: name, rego: rego}
	entries, err := fs.ReadDir(fsys, "cases")
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return texts{}, fmt.Errorf("reading the policy cases: %w", err)
	}
	for _, entry := range entries { // sorted by name
		ext := path.Ext(entry.Name())
		if entry.IsDir() || strings.HasPrefix(entry.Name(), ".") || ext != ".yaml" && ext != ".yml" {
			continue
		}
		text, err := readFile(fsys, path.Join("cases", entry.Name()))
		if err != nil {
			return texts{}, fmt.Errorf("reading the policy cases: %w", err)
		}
		t.cases = append(t.cases, caseText{path.Join("cases", entry.Name()), text})
	}
	return t, nil
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
	src := Source{Name: t.name, Rego: t.rego}
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
	for _, c := range t.cases {
		fmt.Fprintf(h, "%q %d\n", c.name, len(c.text))
		h.Write(c.text)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
