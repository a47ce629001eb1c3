// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"
	"testing"
	"unsafe"
)

// From linux/fanotify.h: a listener that must allow each opening of a file.
const (
	fanClassContent  = 0x04
	fanMarkAdd       = 0x01
	fanOpenPerm      = 0x00010000
	fanEventOnChild  = 0x08000000
	atWorkingFolder  = -0x64
	fanotifyReadOnly = syscall.O_RDONLY | syscall.O_CLOEXEC
)

// hangingFiles returns what makes every opening of a file in the folder hang,
// as a network file system would whose server is gone, until it is released.
// The listener is asked for leave and never answers. It reports an error where
// the kernel does not let us: that takes root.
func hangingFiles(dir string) (func(t *testing.T) (release func()), error) {
	listen := func() (int, error) {
		fd, _, e := syscall.Syscall(syscall.SYS_FANOTIFY_INIT, fanClassContent|1 /* FAN_CLOEXEC */, fanotifyReadOnly, 0)
		if e != 0 {
			return -1, e
		}
		path, err := syscall.BytePtrFromString(dir)
		if err != nil {
			return -1, err
		}
		at := atWorkingFolder
		_, _, e = syscall.Syscall6(syscall.SYS_FANOTIFY_MARK, fd, fanMarkAdd, fanOpenPerm|fanEventOnChild, uintptr(at), uintptr(unsafe.Pointer(path)), 0)
		if e != 0 {
			_ = syscall.Close(int(fd))
			return -1, e
		}
		return int(fd), nil
	}
	fd, err := listen()
	if err != nil {
		return nil, err
	}
	_ = syscall.Close(fd)
	return func(t *testing.T) func() {
		fd, err := listen()
		if err != nil {
			t.Fatal(err)
		}
		open := true
		release := func() {
			if open {
				_ = syscall.Close(fd) // what waits is let through
				open = false
			}
		}
		t.Cleanup(release)
		return release
	}, nil
}
