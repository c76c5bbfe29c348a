/* Browsers start no workers in pages that are opened as files, and the site's search runs in one.
   There, the script runs in a hidden frame, with the interface of a worker. */
if (location.protocol === 'file:') {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement('iframe');
      frame.hidden = true;
      this.inside = new Promise(resolve => {
        frame.addEventListener('load', () => {
          const inside = frame.contentWindow;
          inside.postMessage = data => this.dispatchEvent(new MessageEvent('message', {data}));
          const script = inside.document.createElement('script');
          script.src = new URL(address, location.href);
          script.addEventListener('load', () => resolve(inside));
          inside.document.body.append(script);
        }, {once: true});
      });
      document.body.append(frame);
    }

    async postMessage(data) {
      const inside = await this.inside;
      inside.dispatchEvent(new inside.MessageEvent('message', {data}));
    }
  };
}
