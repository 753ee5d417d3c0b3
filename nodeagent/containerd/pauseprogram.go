package containerd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"

	"github.com/pawl-project/pawl/schema"
)

// pauseProgram is what runs as process 1 of a PID namespace that the containers
// of a pod share: a program of Linux with some 300 bytes. A process of this
// binary would cost 20 MiB for each pod. In C it were
//
//	sigaction(SIGCHLD, SIG_IGN);        the kernel then reaps what ends in its care
//	if (read(0, &c, 1) != 1) exit(1);   its maker died before it was in its cgroup
//	close(0);
//	for (;;) pause();
//
// The kernel keeps from a namespace's process 1 every signal of its namespace
// that it does not handle, KILL too.
func pauseProgram() ([]byte, error) {
	code, there := pauseCode[runtime.GOARCH]
	if !there {
		return nil, fmt.Errorf("shareProcessNamespace and hostUsers: false are not built for %s: %w", runtime.GOARCH, schema.ErrRefused)
	}
	return executable(code.machine, code.text), nil
}

// pauseCode is by GOARCH. The text ends with the kernel's struct sigaction:
// SIG_IGN and zeros.
var pauseCode = map[string]struct {
	machine uint16 // of ELF
	text    []byte
}{
	"amd64": {62, joined(
		[]byte{0xb8, 13, 0, 0, 0},             // mov  $13,%eax    rt_sigaction
		[]byte{0xbf, 17, 0, 0, 0},             // mov  $17,%edi    SIGCHLD
		[]byte{0x48, 0x8d, 0x35, 63, 0, 0, 0}, // lea  act(%rip),%rsi
		[]byte{0x31, 0xd2},                    // xor  %edx,%edx
		[]byte{0x41, 0xba, 8, 0, 0, 0},        // mov  $8,%r10d
		[]byte{0x0f, 0x05},                    // syscall
		[]byte{0x31, 0xc0},                    // xor  %eax,%eax   read
		[]byte{0x31, 0xff},                    // xor  %edi,%edi
		[]byte{0x48, 0x89, 0xe6},              // mov  %rsp,%rsi
		[]byte{0xba, 1, 0, 0, 0},              // mov  $1,%edx
		[]byte{0x0f, 0x05},                    // syscall
		[]byte{0x48, 0x83, 0xf8, 1},           // cmp  $1,%rax
		[]byte{0x75, 18},                      // jne  exit
		[]byte{0xb8, 3, 0, 0, 0},              // mov  $3,%eax     close
		[]byte{0x31, 0xff},                    // xor  %edi,%edi
		[]byte{0x0f, 0x05},                    // syscall
		[]byte{0xb8, 34, 0, 0, 0},             // loop: mov $34,%eax  pause
		[]byte{0x0f, 0x05},                    // syscall
		[]byte{0xeb, 0xf7},                    // jmp  loop
		[]byte{0xb8, 231, 0, 0, 0},            // exit: mov $231,%eax exit_group
		[]byte{0xbf, 1, 0, 0, 0},              // mov  $1,%edi
		[]byte{0x0f, 0x05},                    // syscall
		[]byte{0x0f, 0x1f, 0},                 // nop
		ignored)},
	"arm64": {183, joined(words(
		0xd2800220, // mov x0, #17       SIGCHLD
		0x10000321, // adr x1, act
		0xaa1f03e2, // mov x2, xzr
		0xb27d03e3, // mov x3, #8
		0xd28010c8, // mov x8, #134      rt_sigaction
		0xd4000001, // svc #0
		0xaa1f03e0, // mov x0, xzr
		0x910003e1, // mov x1, sp
		0xb24003e2, // mov x2, #1
		0xb24017e8, // mov x8, #63       read
		0xd4000001, // svc #0
		0xf100041f, // cmp x0, #1
		0x54000161, // b.ne exit
		0xaa1f03e0, // mov x0, xzr
		0xd2800728, // mov x8, #57       close
		0xd4000001, // svc #0
		0xaa1f03e0, // loop: mov x0, xzr
		0xaa1f03e1, // mov x1, xzr
		0xaa1f03e2, // mov x2, xzr
		0xaa1f03e3, // mov x3, xzr
		0xd2800928, // mov x8, #73       ppoll, for ever
		0xd4000001, // svc #0
		0x17fffffa, // b loop
		0xb24003e0, // exit: mov x0, #1
		0xd2800bc8, // mov x8, #94       exit_group
		0xd4000001, // svc #0
	), ignored)},
}

// ignored is the kernel's struct sigaction with SIG_IGN.
var ignored = append([]byte{1}, make([]byte, 31)...)

func joined(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func words(list ...uint32) (text []byte) {
	for _, w := range list {
		text = binary.LittleEndian.AppendUint32(text, w)
	}
	return text
}

// executable is a static ELF file of one segment, which begins with the file.
func executable(machine uint16, text []byte) []byte {
	const (
		headers = 64 + 56 // of the file and of its one segment
		at      = 0x10000 // where it is loaded; a multiple of every page size
	)
	le := binary.LittleEndian
	f := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0} // 64 bits, little endian
	f = le.AppendUint16(f, 2)                                            // an executable
	f = le.AppendUint16(f, machine)
	f = le.AppendUint32(f, 1)
	f = le.AppendUint64(f, at+headers) // where it begins
	f = le.AppendUint64(f, 64)         // where the segments' headers are
	f = le.AppendUint64(f, 0)
	f = le.AppendUint32(f, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		f = le.AppendUint16(f, v)
	}
	size := uint64(headers + len(text))
	f = le.AppendUint32(f, 1)   // load
	f = le.AppendUint32(f, 4|1) // to be read and executed
	for _, v := range []uint64{0, at, at, size, size, at} {
		f = le.AppendUint64(f, v)
	}
	return append(f, text...)
}
