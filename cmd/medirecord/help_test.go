// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// The help of each command is golden: go test ./cmd/medirecord -update.
func TestHelp(t *testing.T) {
	// Not parallel: it sets the environment, so that the default data folder is
	// the same for everybody.
	t.Setenv("XDG_DATA_HOME", "/var/lib")
	t.Setenv("COLUMNS", "100")
	parser, err := kong.New(&cli{}, kong.Vars{"dev_data": ""})
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]bool{}
	for _, command := range append([]string{""}, paths(parser)...) {
		name := "medirecord" + strings.ReplaceAll(" "+command, " ", "_") + ".txt"
		if command == "" {
			name = "medirecord.txt"
		}
		wanted[name] = true
		t.Run(strings.TrimSuffix(name, ".txt"), func(t *testing.T) {
			var out, errs bytes.Buffer
			code := run(&env{ctx: t.Context(), out: &out, err: &errs}, append(strings.Fields(command), "--help"))
			if code != exitDone || errs.Len() > 0 {
				t.Errorf("exits %d, want 0; stderr: %s", code, errs.String())
			}
			path := filepath.Join("testdata", "help", name)
			if *update {
				if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if out.String() != string(want) {
				t.Errorf("got\n%s\nwant (%s)\n%s", out.String(), path, want)
			}
		})
	}
	there, err := os.ReadDir(filepath.Join("testdata", "help"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range there {
		if !wanted[f.Name()] {
			t.Errorf("%s is the help of no command", f.Name())
		}
	}
}

// paths lists the commands and the groups of commands.
func paths(parser *kong.Kong) []string {
	var out []string
	_ = kong.Visit(parser.Model, func(n kong.Visitable, next kong.Next) error {
		if node, ok := n.(*kong.Node); ok && node.Type == kong.CommandNode {
			var words []string
			for at := node; at != nil && at.Type == kong.CommandNode; at = at.Parent {
				words = append([]string{at.Name}, words...)
			}
			out = append(out, strings.Join(words, " "))
		}
		return next(nil)
	})
	return out
}

func TestNoCommandIsHelp(t *testing.T) {
	t.Parallel()
	var bare, asked bytes.Buffer
	code := run(&env{ctx: t.Context(), out: &bare, err: &bare}, nil)
	run(&env{ctx: t.Context(), out: &asked, err: &asked}, []string{"--help"})
	if code != exitDone || bare.String() != asked.String() || !strings.Contains(bare.String(), "medirecord serve") {
		t.Errorf("exits %d, want 0, and says\n%s", code, bare.String())
	}
}
