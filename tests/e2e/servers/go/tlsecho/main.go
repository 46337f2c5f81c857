// SPDX-License-Identifier: Apache-2.0

// Command tlsecho sends back what it gets over TLS, with buffers on its goroutines' stacks, which it
// makes grow and shrink all the time. With WORKERS it exchanges messages with itself, and ends with
// an error as soon as one of them is not what it should be. Usage: tlsecho PORT WORKERS
//
// TLS_CERT and TLS_KEY name its certificate and key. Each line on its standard input is answered by
// the number of exchanges so far; the end of that input ends it.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
)

var exchanges int64

// deep calls f with so many more KiB of stack in use.
//
//go:noinline
func deep(kib int, f func() error) error {
	var room [1024]byte
	if kib == 0 {
		return f()
	}
	room[kib%len(room)] = 1
	err := deep(kib-1, f)
	runtime.KeepAlive(&room)
	return err
}

// apart runs f on a goroutine of its own, whose stack is small at first.
func apart(f func() error) error {
	done := make(chan error)
	go func() { done <- f() }()
	return <-done
}

// receive reads into a buffer on the stack.
func receive(conn *tls.Conn) ([]byte, error) {
	var buffer [5000]byte
	n, err := conn.Read(buffer[:])
	return append([]byte(nil), buffer[:n]...), err
}

func echo(conn *tls.Conn) {
	defer conn.Close()
	for turn := 0; ; turn++ {
		err := deep(turn%40, func() error {
			text, err := receive(conn)
			if err != nil {
				return err
			}
			return apart(func() error {
				_, err := conn.Write(text)
				return err
			})
		})
		if err != nil {
			return
		}
	}
}

func ping(conn *tls.Conn, text []byte) error {
	var buffer [9000]byte
	if _, err := conn.Write(text); err != nil {
		return err
	}
	got := 0
	for got < len(text) {
		n, err := conn.Read(buffer[got:])
		if err != nil {
			return err
		}
		got += n
	}
	if !bytes.Equal(buffer[:got], text) {
		return fmt.Errorf("%d bytes came back changed", got)
	}
	atomic.AddInt64(&exchanges, 1)
	return nil
}

func work(address string, number int) error {
	for round := 0; ; round++ {
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return err
		}
		for turn := 0; turn < 20; turn++ {
			text := bytes.Repeat([]byte(strconv.Itoa(number*1000+turn)+" "), 1+37*turn)
			err := apart(func() error {
				return deep((turn*7+round)%50, func() error { return ping(conn, text) })
			})
			if err != nil {
				return err
			}
		}
		conn.Close()
	}
}

func main() {
	pair, err := tls.LoadX509KeyPair(os.Getenv("TLS_CERT"), os.Getenv("TLS_KEY"))
	if err != nil {
		log.Fatal(err)
	}
	address := "127.0.0.1:" + os.Args[1]
	plain, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	listener := tls.NewListener(plain, &tls.Config{Certificates: []tls.Certificate{pair}})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				log.Fatal(err)
			}
			go echo(conn.(*tls.Conn))
		}
	}()
	workers, _ := strconv.Atoi(os.Args[2])
	for number := 0; number < workers; number++ {
		go func(number int) { log.Fatal(work(address, number)) }(number)
	}
	go func() {
		for range time.Tick(5 * time.Millisecond) {
			runtime.GC() // makes the stacks of those that wait smaller
		}
	}()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		fmt.Println(atomic.LoadInt64(&exchanges))
	}
}
