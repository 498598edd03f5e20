// Vue draws the frame once; rows are kept by hand, so that a tick touches only its own cells.
export default {
  template: `
    <table class="live-table" :data-testid="name">
      <thead><tr><th v-for="c in columns" :key="c.key" :class="'c-' + c.key" scope="col">{{ c.label }}</th></tr></thead>
      <tbody ref="body"></tbody>
      <tfoot ref="foot"></tfoot>
    </table>`,
  props: { name: String, columns: Array },
  created() {
    this.rows = new Map();
    this.totals = null;
  },
  methods: {
    patch(changes) {
      for (const [ticket, cells] of Object.entries(changes.rows ?? {})) {
        if (!this.rows.has(ticket)) this.rows.set(ticket, this.newRow("td", ticket));
        this.fill(this.rows.get(ticket), cells);
      }
      if (changes.order) this.arrange(changes.order);
      if (changes.totals) this.total(changes.totals);
    },
    arrange(order) {
      const kept = new Set(order);
      for (const [ticket, row] of this.rows) {
        if (kept.has(ticket)) continue;
        row.remove();
        this.rows.delete(ticket);
      }
      order.forEach((ticket, at) => {
        const row = this.rows.get(ticket);
        const there = this.$refs.body.children[at];
        if (there !== row) this.$refs.body.insertBefore(row, there ?? null);
      });
    },
    total(cells) {
      this.totals?.remove();
      this.totals = null;
      if (Object.keys(cells).length === 0) return;
      this.totals = this.newRow("td", null);
      this.$refs.foot.append(this.totals);
      this.fill(this.totals, cells);
    },
    newRow(tag, ticket) {
      const row = document.createElement("tr");
      row.dataset.testid = ticket === null ? `${this.name}-total` : `${this.name}-row`;
      if (ticket !== null) row.dataset.ticket = ticket;
      for (const column of this.columns) {
        const cell = document.createElement(tag);
        cell.className = `c-${column.key}`;
        cell.dataset.column = column.key;
        cell.dataset.label = column.label;
        row.append(cell);
      }
      return row;
    },
    fill(row, cells) {
      for (const cell of row.children) {
        const change = cells[cell.dataset.column];
        if (!change) continue;
        cell.textContent = change[0];
        cell.dataset.tone = change[1];
      }
    },
  },
};
