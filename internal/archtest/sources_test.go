// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/medirecord/medirecord"

// root of the module, from this package's folder.
const root = "../.."

// file is one Go file of the module.
type file struct {
	path, pkg string // from the root
	test      bool
	imports   []string
	text      string
	ast       *ast.File
	set       *token.FileSet
}

// files reads every Go file of the module, once. tools/ is a module of its own.
func files(t *testing.T) []file {
	t.Helper()
	all, err := read()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 100 {
		t.Fatalf("got %d Go files, want the whole module", len(all))
	}
	return all
}

var read = sync.OnceValues(func() (out []file, err error) {
	set := token.NewFileSet()
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != root && (name[0] == '.' || name == "testdata" || name == "tools" || name == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" || d.Name()[0] == '.' {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f := file{text: string(text), set: set, test: strings.HasSuffix(path, "_test.go")}
		if f.ast, err = parser.ParseFile(set, path, text, parser.ParseComments|parser.SkipObjectResolution); err != nil {
			return err
		}
		f.path, _ = filepath.Rel(root, path)
		f.pkg = filepath.ToSlash(filepath.Dir(f.path))
		for _, i := range f.ast.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, name)
		}
		out = append(out, f)
		return nil
	})
	return out, err
})

func TestEveryFileNamesItsLicence(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		if !strings.HasPrefix(f.text, "// SPDX-License-Identifier: Apache-2.0\n") && !ast.IsGenerated(f.ast) {
			t.Errorf("%s does not begin with // SPDX-License-Identifier: Apache-2.0", f.path)
		}
	}
}

// Time comes in as a field, now func() time.Time, so that a test can hold it
// still. Handing on time.Now as a value is how it gets there.
func TestTheClockIsReadOnTheRoofOnly(t *testing.T) {
	t.Parallel()
	above := strings.Fields("internal/app internal/medtest coresdk/coresdktest cmd/medirecord examples/ginservice bench bench/load")
	for _, f := range files(t) {
		if f.test || slices.Contains(above, f.pkg) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if s, ok := call.Fun.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until"}, s.Sel.Name) {
					t.Errorf("%s reads the clock: take the time from a field, now func() time.Time", f.set.Position(call.Pos()))
				}
			}
			return true
		})
	}
}

// What is to be done has an issue, or is not left lying in the code.
func TestWhatIsLeftToDoHasAnIssue(t *testing.T) {
	t.Parallel()
	left := regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
	numbered := regexp.MustCompile(`\bTODO\(#\d+\):`)
	for _, f := range files(t) {
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				if left.MatchString(c.Text) && !numbered.MatchString(c.Text) {
					t.Errorf("%s: say what is to be done with its issue, or do it", f.set.Position(c.Pos()))
				}
			}
		}
	}
}
