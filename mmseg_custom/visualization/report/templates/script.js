// Sorts the tables by the buttons in their heads, and filters their rows. Nothing else.
'use strict';

function sort(table, column, down) {
  const body = table.tBodies[0];
  const key = row => row.cells[column].dataset.value;
  const rows = [...body.rows].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === '' || b === '') return (a === '') - (b === '');  // what has no value comes last
    const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
    return down ? -order : order;
  });
  body.append(...rows);
}

for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector('button').addEventListener('click', () => {
    const named = table.tBodies[0].rows[0]?.cells[column].classList.contains('name');
    const before = head.getAttribute('aria-sort');
    // Names begin with A, numbers with the largest.
    const down = before === 'none' ? !named : before === 'ascending';
    heads.forEach(other => other.setAttribute('aria-sort', 'none'));
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    sort(table, column, down);
  }));
  const search = table.closest('section').querySelector('[data-filter]');
  search?.addEventListener('input', () => {
    const text = search.value.trim().toLowerCase();
    for (const row of table.tBodies[0].rows) {
      row.hidden = !row.cells[0].dataset.value.toLowerCase().includes(text);
    }
  });
}
