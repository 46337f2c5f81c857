// SPDX-License-Identifier: Apache-2.0

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.concurrent.Executors;

/** The JDK's own HTTP server. Usage: java -cp DIR Server PORT; access log in $ACCESS_LOG. */
public final class Server {
    private static final byte[] BIG = new byte[200_000];
    private static FileOutputStream log;

    public static void main(String[] arguments) throws IOException {
        Arrays.fill(BIG, (byte) 'b');
        log = new FileOutputStream(System.getenv("ACCESS_LOG"), true);
        InetAddress loopback = InetAddress.getByName("127.0.0.1");
        int port = Integer.parseInt(arguments[0]);
        HttpServer server = HttpServer.create(new InetSocketAddress(loopback, port), 128);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", Server::handle);
        server.start();
    }

    private static void handle(HttpExchange exchange) throws IOException {
        long started = System.nanoTime();
        String[] path = exchange.getRequestURI().getPath().split("/");
        byte[] body = exchange.getRequestBody().readAllBytes();
        int status = 200;
        int sent;
        switch (path[1]) {
            case "status":
                status = Integer.parseInt(path[2]);
                boolean bodiless = status == 204 || status == 304;
                sent = answer(exchange, status, bodiless ? new byte[0] : text("status\n"));
                break;
            case "echo":
                sent = answer(exchange, 200, body);
                break;
            case "upload":
                sent = answer(exchange, 200, text(body.length + "\n"));
                break;
            case "chunked":
                sent = answerInPieces(exchange, 5);
                break;
            case "big":
                sent = answer(exchange, 200, BIG);
                break;
            case "slow":
                pause(20);
                sent = answer(exchange, 200, text("slow\n"));
                break;
            case "close":
                exchange.getResponseHeaders().set("Connection", "close");
                sent = answer(exchange, 200, text("closing\n"));
                break;
            default:
                status = exchange.getRequestMethod().equals("DELETE") ? 204 : 200;
                String item = status == 204 ? "" : "item " + path[path.length - 1] + "\n";
                sent = answer(exchange, status, text(item));
        }
        long duration = System.nanoTime() - started; // until the answer is handed over
        exchange.close();
        record(exchange, path[path.length - 1], status, body.length, sent, duration);
    }

    private static byte[] text(String value) {
        return value.getBytes(StandardCharsets.UTF_8);
    }

    private static int answer(HttpExchange exchange, int status, byte[] body) throws IOException {
        boolean head = exchange.getRequestMethod().equals("HEAD");
        if (head) {
            exchange.getResponseHeaders().set("Content-Length", String.valueOf(body.length));
        }
        int sent = head ? 0 : body.length;
        exchange.sendResponseHeaders(status, sent == 0 ? -1 : sent);
        if (sent > 0) {
            exchange.getResponseBody().write(body);
        }
        return sent;
    }

    private static int answerInPieces(HttpExchange exchange, int count) throws IOException {
        int sent = 0;
        exchange.sendResponseHeaders(200, 0);
        try (OutputStream out = exchange.getResponseBody()) {
            for (int i = 0; i < count; i++) {
                byte[] piece = text("piece " + i + "\n");
                out.write(piece);
                out.flush();
                sent += piece.length;
            }
        }
        return sent;
    }

    private static void pause(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    private static void record(HttpExchange exchange, String id, int status, int received,
            int sent, long duration) throws IOException {
        String line = String.format("{\"id\": \"%s\", \"method\": \"%s\", \"path\": \"%s\", "
                + "\"status\": %d, \"request_bytes\": %d, \"response_bytes\": %d, "
                + "\"duration_us\": %d}%n", id, exchange.getRequestMethod(),
                exchange.getRequestURI().getPath(), status, received, sent,
                duration / 1000);
        log.write(text(line));
    }
}
