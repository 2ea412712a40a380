// The tabs of a browser share a simulation's stream. Over HTTP/1.1 a browser has six connections to a host, so that six
// tabs with a stream each would leave none to load a seventh. One tab, by a lock, has the stream and passes its frames on;
// hidden tabs let go of it. Each tab knows the last event that it shows, so whoever takes over goes on after that one, and
// whoever has fallen behind asks. A browser without locks (over plain HTTP there are none) has a stream for each visible tab.
"use strict";

(() => {
  const NAMES = ["update", "close"];
  const KEPT_FRAMES = 200;
  const SLOTS = 4; // streams at once, of however many simulations; they take turns
  const TURN_MILLISECONDS = 3000;

  // What a fragment would append a second time is left out; what it replaces may be replaced again.
  const withoutSeen = (html, cursor) => {
    const parsed = document.createElement("template");
    parsed.innerHTML = html;
    for (const line of parsed.content.querySelectorAll("li[data-sequence]")) if (Number(line.dataset.sequence) <= cursor) line.remove();
    const shown = Number(document.querySelector("#rounds-rows tr:last-child th")?.dataset.value ?? -1);
    for (const part of parsed.content.querySelectorAll("template"))
      for (const row of part.content.querySelectorAll('[hx-swap-oob="beforeend:#rounds-rows"] tr')) if (Number(row.cells[0].dataset.value) <= shown) row.remove();
    return parsed.innerHTML;
  };

  // In the place of an EventSource, for htmx.
  class SharedStream extends EventTarget {
    constructor(address) {
      super();
      const url = new URL(address, window.location.href);
      this.path = url.pathname;
      this.cursor = Number(url.searchParams.get("after")); // the last event that this tab shows
      this.asked = null;
      this.readyState = EventSource.CONNECTING;
      this.source = null; // this tab's, while it has the stream
      this.channel = navigator.locks && window.BroadcastChannel ? new BroadcastChannel(`fedsite ${this.path}`) : null;
      if (this.channel) this.channel.onmessage = (message) => this.hear(message.data);
      this.look = () => (document.hidden ? this.rest() : this.wake());
      document.addEventListener("visibilitychange", this.look);
      window.addEventListener("pagehide", () => this.close());
      this.look();
    }

    // Listeners are there only after the constructor, so what happens at once is told a moment later.
    tell(state) {
      queueMicrotask(() => {
        if (this.readyState === EventSource.CLOSED) return;
        this.readyState = state === "on" ? EventSource.OPEN : EventSource.CONNECTING;
        if (state === "on") this.onopen?.(new Event("open"));
        else this.onerror?.(new Event("error"));
      });
    }

    wake() {
      if (this.waiting || this.readyState === EventSource.CLOSED) return;
      this.waiting = new AbortController();
      if (!this.channel) {
        this.open();
        return;
      }
      const { signal } = this.waiting;
      const slot = `fedsite slot ${Number(this.path.match(/\d+/)?.[0] ?? 0) % SLOTS}`;
      const locked = (name, hold) => navigator.locks.request(name, { signal }, hold);
      const lead = async () => {
        while (!signal.aborted) await locked(slot, () => this.turn(slot, signal));
      };
      locked(`fedsite ${this.path}`, lead).catch((error) => {
        if (error.name !== "AbortError") throw error;
      });
      this.ask();
    }

    rest() {
      this.waiting?.abort();
      this.waiting = null;
      this.shut();
    }

    // Until it is hidden or closed, or others have waited for long enough.
    turn(slot, signal) {
      return new Promise((resolve) => {
        let isOver = false;
        const check = setInterval(async () => {
          if ((await navigator.locks.query()).pending.some((lock) => lock.name === slot)) end();
        }, TURN_MILLISECONDS);
        const end = () => {
          if (isOver) return; // an answer that comes late would end the next turn
          isOver = true;
          clearInterval(check);
          this.shut();
          resolve();
        };
        signal.addEventListener("abort", end);
        if (signal.aborted) end();
        else this.open();
      });
    }

    open() {
      this.shut();
      this.position = this.cursor; // where the stream is
      this.kept = [];
      this.connect();
    }

    connect() {
      const source = new EventSource(`${this.path}?after=${this.position}`);
      this.source = source;
      source.onopen = () => this.share({ state: "on" });
      source.onerror = () => {
        if (source.readyState !== EventSource.CLOSED) return this.share({ state: "lost" });
        // Refused. Whoever waits for the stream may try; htmx comes back with another one of us after a while.
        this.close();
        this.onerror?.(new Event("error"));
      };
      for (const name of NAMES)
        source.addEventListener(name, (message) => {
          const frame = { name, data: message.data, from: this.position, to: name === "close" ? this.position : Number(message.lastEventId) };
          this.position = frame.to;
          this.kept.push(frame);
          if (this.kept.length > KEPT_FRAMES) this.kept.shift();
          this.share(frame);
        });
    }

    shut() {
      this.source?.close();
      this.source = null;
    }

    close() {
      this.readyState = EventSource.CLOSED;
      document.removeEventListener("visibilitychange", this.look);
      this.rest();
      this.channel?.close();
      this.channel = null;
    }

    // Once for each place, however many frames come that do not fit it, and again after a second.
    ask() {
      if (this.asked === this.cursor) return;
      this.asked = this.cursor;
      setTimeout(() => (this.asked = null), 1000);
      this.channel?.postMessage({ behind: this.cursor });
    }

    share(message) {
      this.channel?.postMessage(message);
      this.hear(message);
    }

    hear(message) {
      if (document.hidden || this.readyState === EventSource.CLOSED) return;
      if ("behind" in message) {
        if (this.source) this.help(message.behind);
      } else if ("state" in message) this.tell(message.state);
      else this.take(message);
    }

    // Another tab shows less than has come: it gets what is kept, or the stream goes back to where that tab is.
    help(cursor) {
      if (this.source.readyState === EventSource.OPEN) this.channel.postMessage({ state: "on" });
      if (cursor >= (this.kept[0]?.from ?? this.position)) {
        for (const frame of this.kept) if (frame.to > cursor) this.channel.postMessage(frame);
        return;
      }
      this.shut();
      this.position = cursor;
      this.kept = [];
      this.connect();
    }

    take({ name, data, from, to }) {
      if (from > this.cursor) {
        this.ask();
        return;
      }
      if (name === "update") {
        if (to <= this.cursor) return;
        if (from < this.cursor) data = withoutSeen(data, this.cursor);
        this.cursor = to;
      }
      this.dispatchEvent(new MessageEvent(name, { data, lastEventId: String(to) }));
    }
  }

  htmx.createEventSource = (address) => new SharedStream(address);
})();
