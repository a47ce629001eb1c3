// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// program is the medirecord that the tests run: this test binary under that
// name. So it is built once, and is the program itself, its children included.
var program string

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "medirecord" {
		main() // and no further: it exits
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "medirecord-bin-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program = filepath.Join(dir, "medirecord")
	self, err := os.Executable()
	if err == nil {
		err = os.Link(self, program)
	}
	if err != nil { // another file system
		err = copyFile(program, self)
	}
	if err != nil {
		panic(err)
	}
	return m.Run()
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
