// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestStories runs testdata/*.txtar: what an operator types, and what they are
// told. The files after the story are put into its folder first. A story knows
//
//	env NAME=VALUE             for the commands that follow; NAME= takes it away
//	exits CODE PROGRAM ARG...  runs it and wants that exit code
//	stdout REGEXP              what the last program said there; ! for the opposite
//	stderr REGEXP
//	chmod MODE FILE
//	mkdir DIR
//	link NEW OLD
//
// Words are separated by blanks; 'quoted words' may hold them. $WORK and the
// story's variables are filled in; $AUDIT is the folder of audit's exports.
func TestStories(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("testdata", "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			tell(t, file)
		})
	}
}

type story struct {
	dir       string
	env       map[string]string
	out, errs string
	ran       bool
}

func tell(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &story{dir: t.TempDir(), env: map[string]string{"PATH": os.Getenv("PATH")}}
	s.env["WORK"], s.env["HOME"] = s.dir, s.dir
	if s.env["AUDIT"], err = filepath.Abs("../../internal/audit/testdata/export"); err != nil {
		t.Fatal(err)
	}
	script, files := unpack(string(text))
	for name, body := range files {
		path := filepath.Join(s.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(body), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for i, line := range strings.Split(script, "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := s.do(line); err != nil {
			t.Fatalf("%s:%d: %s\n%v\nstdout:\n%s\nstderr:\n%s", file, i+1, line, err, s.out, s.errs)
		}
	}
	if !s.ran {
		t.Fatal("a story in which nothing happens")
	}
}

// unpack splits an archive: a text, and after each line `-- NAME --` a file.
func unpack(text string) (script string, files map[string]string) {
	files = map[string]string{}
	name := ""
	for line := range strings.Lines(text) {
		if n, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(n, " --\n") {
			name = strings.TrimSuffix(n, " --\n")
			files[name] = ""
			continue
		}
		if name == "" {
			script += line
		} else {
			files[name] += line
		}
	}
	return script, files
}

func (s *story) do(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	not := verb == "!"
	if not {
		verb, rest, _ = strings.Cut(rest, " ")
	}
	if verb == "stdout" || verb == "stderr" {
		return s.said(verb, strings.TrimSpace(rest), not)
	}
	words, err := s.words(rest)
	switch {
	case err != nil:
		return err
	case not:
		return errors.New("! goes with stdout and stderr only")
	case verb == "env" && len(words) == 1:
		name, value, _ := strings.Cut(words[0], "=")
		if s.env[name] = value; value == "" {
			delete(s.env, name)
		}
		return nil
	case verb == "exits" && len(words) >= 2:
		return s.run(words[0], words[1], words[2:])
	case verb == "chmod" && len(words) == 2:
		mode, err := strconv.ParseUint(words[0], 8, 32)
		return cmp.Or(err, os.Chmod(s.path(words[1]), os.FileMode(mode)))
	case verb == "mkdir" && len(words) == 1:
		return os.Mkdir(s.path(words[0]), 0o700)
	case verb == "link" && len(words) == 2:
		return os.Symlink(s.path(words[1]), s.path(words[0]))
	}
	return errors.New("a story knows no such line")
}

func (s *story) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.dir, name)
}

var (
	wordOrQuoted = regexp.MustCompile(`'[^']*'|[^\s']+`)
	leftOver     = regexp.MustCompile(`[^\s]`)
)

// words splits a line. Neighbouring quoted and bare parts are one word.
func (s *story) words(line string) ([]string, error) {
	var out []string
	end := -1
	for _, at := range wordOrQuoted.FindAllStringIndex(line, -1) {
		if gap := line[max(end, 0):at[0]]; leftOver.MatchString(gap) {
			return nil, fmt.Errorf("a quote that does not end")
		}
		word := line[at[0]:at[1]]
		if strings.HasPrefix(word, "'") {
			word = word[1 : len(word)-1]
		} else {
			word = os.Expand(word, func(name string) string { return s.env[name] })
		}
		if at[0] == end {
			out[len(out)-1] += word
		} else {
			out = append(out, word)
		}
		end = at[1]
	}
	return out, nil
}

func (s *story) run(code, name string, args []string) error {
	want, err := strconv.Atoi(code)
	if err != nil {
		return err
	}
	if name == "medirecord" {
		name = program
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, &out, &errs
	for k, v := range s.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	err = cmd.Run()
	s.out, s.errs, s.ran = out.String(), errs.String(), true
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		return err
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		return fmt.Errorf("it exits %d, want %d", got, want)
	}
	return nil
}

func (s *story) said(where, pattern string, not bool) error {
	if len(pattern) > 1 && strings.HasPrefix(pattern, "'") && strings.HasSuffix(pattern, "'") {
		pattern = pattern[1 : len(pattern)-1]
	}
	re, err := regexp.Compile(`(?m)` + strings.ReplaceAll(pattern, "$WORK", regexp.QuoteMeta(s.dir)))
	if err != nil {
		return err
	}
	text := s.out
	if where == "stderr" {
		text = s.errs
	}
	if re.MatchString(text) == not {
		return fmt.Errorf("wrong on %s", where)
	}
	return nil
}
