// SPDX-License-Identifier: Apache-2.0

// Command grpcclient makes the calls of a plan. Usage: grpcclient PORT PLAN CALLS-AT-ONCE LOG GO-FILE
//
// It begins when GO-FILE says "go", and closes its connection when that says "done". PLAN and LOG are JSON lines as those of clients/grpc_client.py.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// raw hands messages over as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (raw) Name() string { return "proto" }

type call struct {
	ID       string          `json:"id"`
	Kind     string          `json:"kind"`
	Messages int             `json:"messages"`
	Ended    string          `json:"ended"`
	Wish     json.RawMessage `json:"wish"`
	Code     int             `json:"code"`
	Answers  int             `json:"answers"`
}

var kinds = map[string]grpc.StreamDesc{
	"unary": {},
	"up":    {ClientStreams: true},
	"down":  {ServerStreams: true},
	"both":  {ClientStreams: true, ServerStreams: true},
}

// exchange sends the messages of c, then takes the answers until the call ends.
func exchange(ctx context.Context, conn *grpc.ClientConn, c *call) error {
	desc := kinds[c.Kind]
	stream, err := conn.NewStream(ctx, &desc, "/shop.v1.Orders/"+c.ID)
	if err != nil {
		return err
	}
	for i := 0; i < c.Messages; i++ {
		message := []byte(c.Wish)
		if i > 0 {
			message = bytes.Repeat([]byte("x"), 100*(i-1))
		}
		if err := stream.SendMsg(&message); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		var message []byte
		if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		c.Answers++
		if !desc.ServerStreams {
			return nil
		}
	}
}

func perform(conn *grpc.ClientConn, c *call) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch c.Ended {
	case "deadline":
		ctx, cancel = context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
	case "cancelled":
		time.AfterFunc(200*time.Millisecond, cancel)
	}
	c.Code = int(status.Code(exchange(ctx, conn, c)))
	expected := map[string]codes.Code{"deadline": codes.DeadlineExceeded, "cancelled": codes.Canceled}
	if code, known := expected[c.Ended]; known && c.Code != int(code) {
		log.Fatalf("%+v", *c)
	}
}

func await(file, word string) {
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if said, _ := os.ReadFile(file); string(said) == word {
			return
		}
		if time.Now().After(deadline) {
			log.Fatal("nobody said ", word)
		}
	}
}

func main() {
	port, plan, output, start := os.Args[1], os.Args[2], os.Args[4], os.Args[5]
	atOnce, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	os.WriteFile(start, []byte("ready"), 0o644)
	await(start, "go")
	conn, err := grpc.Dial("127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})), grpc.WithBlock())
	if err != nil {
		log.Fatal(err)
	}
	input, err := os.Open(plan)
	if err != nil {
		log.Fatal(err)
	}
	file, err := os.Create(output)
	if err != nil {
		log.Fatal(err)
	}
	work := make(chan *call)
	var mutex sync.Mutex
	var group sync.WaitGroup
	for i := 0; i < atOnce; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for c := range work {
				perform(conn, c)
				mutex.Lock()
				json.NewEncoder(file).Encode(c)
				mutex.Unlock()
			}
		}()
	}
	for lines := bufio.NewScanner(input); lines.Scan(); {
		c := &call{}
		if err := json.Unmarshal(lines.Bytes(), c); err != nil {
			log.Fatal(err)
		}
		work <- c
	}
	close(work)
	group.Wait()
	await(start, "done")
	conn.Close()
}
